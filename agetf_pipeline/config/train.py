"""AgeTransformer training: network, losses, loop, and the networks that guide it."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from agetf_pipeline.config.base import Section

ModelSize = Literal["tiny-64", "tiny-128", "base-128", "base-256", "large-256", "large-512"]


class DistillConfig(Section):
    """The frozen networks that guide training: age regressor (of the mixture) and identity."""

    num_steps: int = Field(default=400, ge=1, description="Of each of the two networks.")
    batch_size: int = Field(default=32, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    input_px: int = Field(default=64, ge=32)
    width: int = Field(default=32, ge=8)
    seed: int = 1


class LossWeights(Section):
    """Weights of the losses. Zero switches one off."""

    adversarial: float = Field(default=1.0, ge=0)
    age: float = Field(default=1.0, ge=0)
    identity: float = Field(default=2.0, ge=0)
    reconstruction: float = Field(default=5.0, ge=0)
    lpips: float = Field(
        default=1.0,
        ge=0,
        description="Perceptual distance at the source's own age, on a third of the steps; needs "
        "train.lpips_weights.",
    )
    cycle: float = Field(default=2.0, ge=0)
    order: float = Field(default=0.5, ge=0)
    smoothness: float = Field(default=0.05, ge=0)
    preservation: float = Field(
        default=2.0, ge=0, description="Towards the source, outside the head."
    )
    paired: float = Field(default=5.0, ge=0, description="Towards the same subject at another age.")


class TrainConfig(Section):
    """One training run."""

    run_name: str = Field(default="age_transformer", pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$")
    model: ModelSize = "base-128"
    anchors: Path = Field(default=Path("configs/age_anchors.yaml"))
    guidance: Literal["null", "embedding", "caption"] = Field(
        default="null",
        description="What guides training from the caption cache: nothing, the image's embedding, "
        "or its caption's. Rendering needs none.",
    )
    guidance_dropout: float = Field(default=0.3, ge=0, le=1)
    lpips_weights: Path | None = Field(
        default=None,
        description="AlexNet's ImageNet weights (alexnet-owt-7be5be79.pth) for losses.lpips; "
        "without them the term is off.",
    )
    init_from: Path | None = Field(default=None, description="Weights to start from.")
    num_images: int = Field(default=200_000, ge=1, description="Length, in images seen.")
    batch_size: int = Field(default=16, ge=1, description="Images of a step, in all processes.")
    num_processes: int = Field(
        default=1, ge=1, description="Processes on this machine; more than one: by torchrun."
    )
    sharding: Literal["none", "fsdp2"] = Field(
        default="none",
        description="fsdp2: several processes share the generator's parameters, for the large "
        "sizes.",
    )
    ages_per_image: int = Field(
        default=4, ge=2, description="Renderings of each image in a step: own age, pairs, others."
    )
    all_anchors_every: int = Field(
        default=8, ge=0, description="Steps between those that render every anchor; 0: none."
    )
    paired_fraction: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of a batch drawn from subjects with images at several ages.",
    )
    lr: float = Field(default=2e-4, gt=0)
    lr_discriminator: float = Field(default=2e-4, gt=0)
    lr_warmup_images: int = Field(default=1000, ge=0)
    lr_final_fraction: float = Field(
        default=0.05, gt=0, le=1, description="Of lr, at the end of a cosine decay."
    )
    adversarial_from: float = Field(
        default=0.0, ge=0, le=1, description="Share of the run after which it begins."
    )
    r1_every: int = Field(default=16, ge=1)
    ema_half_life_images: int = Field(default=10_000, ge=1)
    off_anchor_fraction: float = Field(default=0.3, ge=0, le=1)
    enhanced_probability: float = Field(default=0.5, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware computes it, else fp32."
    )
    checkpoint_every_s: float = Field(default=15.0, gt=0)
    keep_last: int = Field(default=2, ge=1, description="Checkpoints kept beside the best.")
    log_every_images: int = Field(default=200, ge=1)
    num_sample_faces: int = Field(default=6, ge=1, description="Rows of the sample grid.")
    validate_every_images: int = Field(
        default=10_000,
        ge=0,
        description="Images between measurements on split 'val', rounded to those of the log; 0: "
        "none while training.",
    )
    num_validation_faces: int = Field(default=64, ge=2, description="Faces of a measurement.")
    num_loader_workers: int = Field(
        default=1, ge=0, description="Reading ahead: 0 or 1, a thread; more: so many processes."
    )
    losses: LossWeights = LossWeights()
    seed: int = 0
