"""Where the workspace is and what the networks run on."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from agetf_pipeline.config.base import Section


class WorkspaceConfig(Section):
    """The folders. Relative paths are taken from the repository root (the config's grandparent)."""

    root: Path = Field(
        default=Path(), description="Workspace root: data/, stats/, models/, outputs/."
    )


class RuntimeConfig(Section):
    """Device, threads, and which weights may load. Not part of any fingerprint."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    num_threads: int | None = Field(default=None, ge=1, description="None: every core it may use.")
    precision: Literal["fp32", "bf16"] = "fp32"
    models_catalogue: Path = Field(
        default=Path("configs/models.yaml"),
        description="Published checkpoints: source, file, sha256, licence. Where it is absent, "
        "only the checksums of the workspace count.",
    )
    allow_unverified_weights: bool = Field(
        default=False,
        description="True: other people's weights load, with a warning, though nothing vouches for "
        "them or a checksum differs.",
    )
