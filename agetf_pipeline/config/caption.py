"""Captions and embeddings by Janus."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class CaptionConfig(Section):
    """The caption cache."""

    prompt: str = Field(default="Describe the face.", min_length=1)
    max_new_tokens: int = Field(
        default=32, ge=1, description="A longer caption is cut, at the end of a sentence."
    )
    temperature: float = Field(
        default=0.0, ge=0, description="0: the likeliest word each time; above: drawn, seeded."
    )
    seed: int = Field(default=0, ge=0, description="Of drawn words; each image has its own draw.")
    token_grid: bool = Field(
        default=False,
        description="Keep each image's features before pooling too, a file an image (2.3 MiB with "
        "Janus-Pro-1B).",
    )
    batch_size: int = Field(
        default=32, ge=1, description="Images captioned at once, and saved at once."
    )
    num_train_faces: int = Field(
        default=1500,
        ge=0,
        description="Drawn faces that teach captions, where the tiny Janus is trained here.",
    )
    max_failed_fraction: float = Field(default=0.2, ge=0, le=1)
