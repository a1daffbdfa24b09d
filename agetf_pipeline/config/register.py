"""The MLflow registry and the release files."""

from datetime import date

from pydantic import Field

from agetf_pipeline.config.base import Section
from agetf_pipeline.config.storage import StorageUri, TrackingUri

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Names of models, versions of releases. A dot first would hide a folder, or lead out of it."""


class GatesConfig(Section):
    """How much worse than the champion a new version may be and still take its place.

    A gate holds where the interval of the paired difference, on the same faces and by the same
    evaluators, excludes a loss beyond its margin: its worse end lies inside. Margins are exchange
    rates, too: what is shown to be gained has to be more margins than what is shown to be lost.
    """

    max_age_mae_increase_years: float = Field(
        default=0.5, ge=0, description="Of renderings, by the estimator outside training."
    )
    max_identity_decrease: float = Field(
        default=0.01, ge=0, description="Cosine similarity to the source."
    )
    max_ssim_decrease: float = Field(
        default=0.01, ge=0, description="Of the source rendered at its own age."
    )
    max_lpips_increase: float = Field(
        default=0.01, ge=0, description="Likewise; where LPIPS was measured."
    )
    max_face_found_decrease: float = Field(
        default=0.02, ge=0, description="Share of renderings in which a face is found."
    )
    max_kid_increase: float = Field(
        default=0.005,
        ge=0,
        description="Of renderings against real faces of the target age; where it was measured.",
    )
    max_sharpness_error_increase: float = Field(
        default=0.05,
        ge=0,
        description="Mean of |log(sharpness of the rendering / of its source)|; likewise.",
    )
    max_group_age_mae_increase_years: float = Field(
        default=3.0, ge=0, description="In any age group or demographic group."
    )
    max_group_identity_decrease: float = Field(default=0.05, ge=0, description="Likewise.")
    max_label_mae_increase_years: float = Field(
        default=0.25, ge=0, description="Of the mixture: its labels against the truth."
    )
    min_label_coverage: float = Field(
        default=0.98,
        ge=0,
        le=1,
        description="Of the mixture: share of the images that the champion labelled which have to "
        "have a label.",
    )
    min_interval_level: float = Field(
        default=0.95, gt=0, lt=1, description="Intervals of a lower level are no evidence."
    )
    min_bootstrap: int = Field(default=200, ge=1, description="Nor are those of fewer resamples.")
    min_faces: int = Field(
        default=30, ge=1, description="Nor figures that decide on fewer faces, or images."
    )


class RegisterConfig(Section):
    """Where runs and models are registered, and when a new version becomes the champion."""

    tracking_uri: TrackingUri | None = Field(
        default=None,
        description="None: SQLite, mlflow.db of the workspace. Credentials are not part of it, but "
        "come from the environment (docs/security.md).",
    )
    experiment: str = "age-transformer"
    model_name: str = Field(default="age-transformer", pattern=_NAME)
    mixture_name: str = Field(default="age-mixture", pattern=_NAME)
    register_mixture: bool = Field(
        default=True, description="The experts' weights are copied into the registry with it."
    )
    gates: GatesConfig = GatesConfig()


class ReleaseConfig(Section):
    """The files for others."""

    include_images: bool = Field(
        default=False,
        description="Enhanced CAF images too. Pictures of people stay out unless asked for.",
    )
    version: str = Field(default="0.1.0", pattern=_NAME)
    licence: str = Field(
        default="CC-BY-NC-SA-4.0",
        description="Of the metadata; FFHQ-Aging and CAF allow non-commercial use only.",
    )
    url: str | None = Field(default=None, description="Where the release will be found.")
    cite_as: str | None = Field(default=None, description="How to cite it.")
    date_published: date | None = Field(
        default=None,
        description="Asked for, not read off a clock: the same tables, the same files.",
    )
    publish_uri: StorageUri | None = Field(
        default=None,
        exclude=True,
        description="Folder in shared storage (s3://, gs://, file:///, ...) below which `agetf "
        "publish` puts a folder per version. Part of no fingerprint.",
    )
