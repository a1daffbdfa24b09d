"""The four age experts: architecture, size, weights, and how they are trained."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from agetf_pipeline.config.base import Section

ExpertName = Literal["janus", "mivolo", "resnet50", "vgg16"]


class ExpertConfig(Section):
    """One expert."""

    size: Literal["tiny", "full"] = "full"
    input_px: int = Field(default=224, ge=32)
    weights: Path | None = Field(
        default=None,
        description="Trained weights. None: models/experts/<name>, trained by the workspace.",
    )
    num_steps: int = Field(
        default=400, ge=1, description="Training length where it is trained here."
    )
    batch_size: int = Field(default=32, ge=1)
    lr: float = Field(default=1e-3, gt=0)


class TrainExpertsConfig(Section):
    """The experts, and their training on the labelled part of the corpora."""

    enabled: bool = Field(
        default=True, description="False: only load weights that are there already."
    )
    experts: dict[ExpertName, ExpertConfig] = Field(default_factory=dict)
    split_seed: int = 0
    split_fractions: dict[str, float] = Field(
        default={"train": 0.7, "calibration": 0.3},
        description="CAF subjects that train the experts, and those that calibrate the mixture.",
    )
    seed: int = 0
