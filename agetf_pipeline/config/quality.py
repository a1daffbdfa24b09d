"""What the asset checks look at, and when they ask a person."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class QualityConfig(Section):
    """The checks between the stages, as Dagster runs them."""

    num_sampled_images: int = Field(
        default=64, ge=1, description="Files that a check of images opens, the same ones each time."
    )
    max_label_drift_years: float = Field(
        default=1.0,
        ge=0,
        description="Earth mover's distance between the ages of these labels and of the last "
        "accepted ones; beyond it a person is asked to look.",
    )
    moved_years: float = Field(
        default=5.0, gt=0, description="A label that changed by more has moved."
    )
    max_moved_fraction: float = Field(
        default=0.05, ge=0, le=1, description="Of the images that had a label before."
    )
    max_weights_mib: int = Field(
        default=512, ge=1, description="Of a weights file that is read to look for NaN."
    )
    refuse_blocked: bool = Field(
        default=True,
        description="A stage refuses what the last check of its inputs found unfit to spread, as "
        "long as these files have not changed since, whichever run found it.",
    )
