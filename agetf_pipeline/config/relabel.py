"""The mixture of experts: gate, calibration, intervals, decisions."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class RelabelConfig(Section):
    """The mixture's labels."""

    min_experts: int = Field(
        default=2, ge=1, description="Fewer answers: no label, with the reason."
    )
    interval_level: float = Field(default=0.9, gt=0, lt=1)
    min_calibration_images: int = Field(
        default=50, ge=2, description="Fewer: uncalibrated, and said so."
    )
    calibration_path: str | None = Field(
        default=None,
        description="A calibration made elsewhere, relative to the workspace root; None: fitted "
        "here on labelled subjects.",
    )
    seed: int = 0
