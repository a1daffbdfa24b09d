"""Where the workspace is and what the networks run on."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from agetf_pipeline.config.base import Section


class WorkspaceConfig(Section):
    """The folders. Relative paths are taken from the repository root (the config's grandparent)."""

    root: Path = Field(
        default=Path(), description="Workspace root: data/, stats/, models/, outputs/."
    )

    @field_validator("root", mode="before")
    @classmethod
    def _is_a_folder(cls, value: Any) -> Any:
        # As a path, `s3://bucket/x` would be a folder named `s3:` beside the repository.
        if "://" in str(value):
            raise ValueError(
                "expected a folder of a file system with rename and flock, not a URI: mount a "
                "shared volume and name its folder (docs/deployment.md)"
            )
        return value


class RuntimeConfig(Section):
    """Device, threads, and which weights may load. Not part of any fingerprint."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    num_threads: int | None = Field(
        default=None,
        ge=1,
        description="Of each process. None: every core it may use; with `num_workers`, its share.",
    )
    num_workers: int = Field(
        default=1,
        ge=1,
        description="Processes that compute a partition together in `predict`, `enhance`, "
        "`recheck` and `caption`; others can join, see `agetf join` and docs/scale.md. Each loads "
        "the networks.",
    )
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = Field(
        default=False,
        description="True: networks whose batches have one shape are compiled (torch.compile). "
        "That takes up to minutes a network at first, seconds afterwards (kept in data/.state), "
        "and pays over thousands of images. Needs a C++ compiler on a CPU, Triton on a GPU.",
    )
    max_silence_s: float = Field(
        default=1800.0,
        gt=0,
        description="Processes that a stage started and that show no sign of work for so long are "
        "ended, and the stage with them; it can then be run again.",
    )
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
