"""The mixture of experts: gate, calibration, intervals, decisions."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class RelabelConfig(Section):
    """The mixture's labels."""

    min_experts: int = Field(
        default=2, ge=1, description="Fewer answers: no label, with the reason."
    )
    required_experts: int | None = Field(
        default=None,
        ge=1,
        description="Experts that must have answered on most images: with fewer, labels are still "
        "made, and their check fails. None: min_experts.",
    )
    interval_level: float = Field(default=0.9, gt=0, lt=1)
    min_calibration_images: int = Field(
        default=50, ge=2, description="Fewer: uncalibrated, and said so."
    )
    max_calibration_images: int = Field(
        default=5_000,
        ge=100,
        description="Of labelled subjects that trained no expert; more of them would cost time and "
        "memory, and change nothing. Subjects are taken whole.",
    )
    calibration_path: str | None = Field(
        default=None,
        description="A calibration made elsewhere, relative to the workspace root; None: fitted "
        "here on labelled subjects.",
    )
    review_below_reliability: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="An original group outside the interval is replaced where the reliability (the "
        "mixture's own probability of being within five years) reaches this; below, it is for "
        "review.",
    )
    review_disagreement_years: float = Field(
        default=20.0, gt=0, description="Experts that disagree by more: for review."
    )
    drop_below_reliability: float = Field(
        default=0.1, ge=0, le=1, description="Below this the image is for dropping."
    )
    num_review_faces: int = Field(
        default=64, ge=0, description="Faces on the contact sheet of the most doubtful labels."
    )
    log_to_mlflow: bool = Field(
        default=True, description="Figures and plots of the mixture as a run in MLflow."
    )
    seed: int = 0
