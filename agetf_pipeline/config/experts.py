"""The age experts: kind, size, weights, and how they are trained."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from agetf_pipeline.config.base import Section

NetworkSize = Literal["tiny", "full"]
ExpertName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
"""An expert's name in tables: lower-case letters, digits and underscores."""


class ExpertConfig(Section):
    """One expert."""

    kind: ExpertName | None = Field(
        default=None,
        description="Which file of agetf_pipeline/experts makes it. None: the one of its own name.",
    )
    size: NetworkSize = "full"
    input_px: int = Field(default=224, ge=32)
    weights: Path | None = Field(
        default=None,
        description="Trained weights. None: models/experts/<name>, trained by the workspace.",
    )
    profile: Literal["imagenet", "legacy_vgg_bgr", "raw_bgr"] = Field(
        default="imagenet",
        description="Pixel normalisation of weights that do not say their own (other people's) and "
        "are not recognised by their keys.",
    )
    face_crop: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Central part of an aligned face that published MiVOLO weights see, of its "
        "side: they want a tighter box than FFHQ's. None: 0.8, a guess (mivolo_input.py).",
    )
    precision: Literal["fp32", "bf16"] | None = Field(
        default=None,
        description="None: runtime.precision. bf16 is taken where the device computes in it and no "
        "age of a set of test faces moves by 0.25 years or more; otherwise fp32, and said so.",
    )
    num_steps: int = Field(
        default=400, ge=1, description="Training length where it is trained here."
    )
    batch_size: int = Field(default=32, ge=1, description="Of training.")
    lr: float = Field(default=1e-3, gt=0, description="Of the head, where the trunk has its own.")
    init_weights: Path | None = Field(
        default=None,
        description="What a training here starts from: torchvision's ImageNet weights (resnet50, "
        "vgg16; the 1000-class head is replaced), or weights written here. None: random.",
    )
    frozen_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the steps in which only the head learns."
    )
    trunk_lr_factor: float = Field(
        default=1.0, gt=0, le=1, description="Learning rate of the trunk over that of the head."
    )
    validation_fraction: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the training subjects held out for early stopping. 0: none, and the "
        "last weights are kept.",
    )
    validate_every: int = Field(default=500, ge=1, description="Steps between two validations.")
    patience: int = Field(
        default=10,
        ge=1,
        description="Validations without a lower error, counted once the trunk learns, after which "
        "training stops.",
    )
    answer: Literal["score", "text"] = Field(
        default="score",
        description="Of Janus alone. score: every age 0..100 is scored. text: a few words are "
        "generated and parsed; an answer without an age is a missing value with its reason.",
    )


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
    tensorboard: bool = Field(
        default=True,
        description="Loss, learning rate and validation error of each training, for TensorBoard, "
        "under outputs/experts/<name>/tensorboard.",
    )
    seed: int = 0
