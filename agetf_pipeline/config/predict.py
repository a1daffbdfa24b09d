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
    max_failed_fraction: float = Field(default=0.2, ge=0, le=1)
