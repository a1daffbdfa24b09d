"""The MLflow registry and the release files."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class GatesConfig(Section):
    """How much worse than the champion a new version may measure and still take its place."""

    max_age_mae_increase_years: float = Field(default=0.0, ge=0)
    max_age_spearman_decrease: float = Field(default=0.0, ge=0)
    max_identity_decrease: float = Field(
        default=0.0, ge=0, description="Cosine similarity to the source."
    )


class RegisterConfig(Section):
    """Where runs and models are registered, and when a new version becomes the champion."""

    tracking_uri: str | None = Field(
        default=None, description="None: SQLite, mlflow.db of the workspace."
    )
    experiment: str = "age-transformer"
    model_name: str = Field(default="age-transformer", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    gates: GatesConfig = GatesConfig()


class ReleaseConfig(Section):
    """The files for others."""

    include_images: bool = Field(
        default=False,
        description="Enhanced CAF images too. Pictures of people stay out unless asked for.",
    )
    version: str = Field(default="0.1.0", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
