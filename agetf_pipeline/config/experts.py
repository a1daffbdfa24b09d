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
    profile: Literal["imagenet", "raw_bgr"] = Field(
        default="imagenet",
        description="Pixel normalisation of weights that do not say their own (other people's).",
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
    subject_fraction: float = Field(
        default=0.85,
        gt=0,
        le=1,
        description="Of the training subjects, what each expert sees; each sees another part.",
    )
    max_train_images: int = Field(
        default=20_000, ge=1, description="Per expert; held in memory at its input size."
    )
    max_calibration_images: int = Field(
        default=2_000, ge=1, description="For the error that the report gives."
    )
    seed: int = 0
