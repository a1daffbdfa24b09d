"""DDColor and ESRGAN: sizes, weights, training of the tiny ones, decisions, guards."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from agetf_pipeline.config.base import Section

GuardName = Literal["age", "identity", "sharpness", "colour"]


class DDColorConfig(Section):
    """The colouriser."""

    size: Literal["tiny", "base", "large"] = "large"
    input_px: int = Field(default=256, ge=32)
    weights: Path | None = None
    num_steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=16, ge=1)
    lr: float = Field(default=1e-3, gt=0)


class ESRGANConfig(Section):
    """The super-resolver."""

    arch: Literal["rrdbnet", "srvgg"] = "rrdbnet"
    size: Literal["tiny", "full", "anime_6b"] = "full"
    scale: Literal[2, 4] = 4
    weights: Path | None = None
    num_steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=16, ge=1)
    patch_px: int = Field(default=32, ge=8, description="Side of what it sees while training.")
    lr: float = Field(default=1e-3, gt=0)


class TrainEnhancersConfig(Section):
    """The two enhancement networks, and their training on the clean part of the corpus."""

    enabled: bool = Field(
        default=True, description="False: only load weights that are there already."
    )
    ddcolor: DDColorConfig = DDColorConfig()
    esrgan: ESRGANConfig = ESRGANConfig()
    max_images: int = Field(
        default=4000, ge=1, description="Clean colour faces to train on, drawn by seed."
    )
    seed: int = 0


class EnhanceConfig(Section):
    """What each image needs, and what it must not do to it."""

    target_px: int = Field(default=512, ge=64)
    colourise: Literal["auto", "always", "never"] = "auto"
    super_resolve: Literal["auto", "always", "never"] = "auto"
    max_grey_colourfulness: float = Field(
        default=4.0, ge=0, description="Hasler-Suesstrunk M3; 0 is grey."
    )
    min_sharpness: float = Field(
        default=0.0,
        ge=0,
        description="Below it, at the target size, an image counts as blurred. 0: none does.",
    )
    max_blockiness: float | None = Field(
        default=None, gt=0, description="Above it an image counts as JPEG-damaged. None: none does."
    )
    engine: Literal["own", "realesrgan"] = Field(
        default="own",
        description="Super-resolution by our batches and tiles, or by RealESRGANer, one image at a "
        "time in fp32, to compare with.",
    )
    precision: Literal["fp32", "bf16"] | None = Field(
        default=None,
        description="Of both networks. None: runtime.precision. bf16 is taken where the device "
        "computes in it.",
    )
    tile_px: int = Field(default=512, ge=64, description="Larger images are done in tiles.")
    max_memory_mib: int | None = Field(
        default=4096,
        ge=64,
        description="Cap on what the networks take for the pictures that are in them at once; "
        "smaller batches, then smaller tiles keep to it. None: no cap.",
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Images a call of a network, at most. None: 1 on a CPU, where as many calls "
        "run side by side as there are threads, and 8 on a GPU.",
    )
    chunk_size: int = Field(default=64, ge=1)
    max_failed_fraction: float = Field(default=0.2, ge=0, le=1)


class RecheckConfig(Section):
    """The guards after enhancement: age, identity, sharpness and colour must be kept."""

    max_age_shift_years: float = Field(default=3.0, gt=0)
    identity_weights: Path | None = Field(
        default=None,
        description="An AdaFace checkpoint, or an identity embedder trained here; not the one that "
        "evaluation uses. None: identity is not judged.",
    )
    min_identity_similarity: float = Field(
        default=0.5,
        ge=-1,
        le=1,
        description="Cosine of the faces before and after. Depends on the network; measure yours.",
    )
    min_sharpness_ratio: float = Field(
        default=0.5,
        ge=0,
        description="Over the original brought to the same size. Below 1: JPEG blocks are sharp.",
    )
    min_colourfulness_gain: float = Field(
        default=2.0, ge=0, description="Of colourised images; Hasler-Suesstrunk M3."
    )
    max_colourfulness_change: float = Field(
        default=5.0, gt=0, description="Of images that were not colourised; up or down."
    )
    exclude: list[GuardName] = Field(
        default=["age", "identity"],
        description="Guards whose flags keep an output from training; the others only tell.",
    )
    exclude_flagged: bool = Field(
        default=True, description="Outputs that a guard in exclude flagged do not reach training."
    )

    def excluding(self) -> list[GuardName]:
        """Return the guards that keep outputs from training, none with exclude_flagged=false."""
        return self.exclude if self.exclude_flagged else []
