"""Running the experts over images."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class PredictConfig(Section):
    """Expert predictions, chunk by chunk."""

    chunk_size: int = Field(default=256, ge=1)
    batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Faces per forward pass. None: chosen by each expert's input size and device.",
    )
    max_memory_mib: int = Field(
        default=4096,
        ge=64,
        description="Memory for what the networks keep of the faces that they read, beside their "
        "weights: it bounds the faces per forward pass, and how many passes run side by side on a "
        "CPU (at most one for each thread). By measured costs, not by trial.",
    )
    max_failed_fraction: float = Field(default=0.2, ge=0, le=1)
