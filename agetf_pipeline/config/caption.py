"""Captions and embeddings by Janus."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class CaptionConfig(Section):
    """The caption cache."""

    prompt: str = "Describe the face."
    max_new_tokens: int = Field(default=32, ge=1)
    batch_size: int = Field(default=32, ge=1)
    chunk_size: int = Field(default=128, ge=1)
    num_train_faces: int = Field(
        default=1500,
        ge=0,
        description="Drawn faces that teach captions, where the tiny Janus is trained here.",
    )
    max_failed_fraction: float = Field(default=0.2, ge=0, le=1)
