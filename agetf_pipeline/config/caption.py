"""Captions and embeddings by Janus."""

from pydantic import Field

from agetf_pipeline.config.base import Section


class CaptionChecks(Section):
    """When captions look wrong enough for a person to be told; no caption is dropped for it."""

    min_words: int = Field(default=3, ge=1, description="A caption of fewer words is too short.")
    max_words: int = Field(default=80, ge=1, description="A caption of more words is too long.")
    max_repeated_fraction: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="A caption that more of the images have (and at least five) is a repeated one.",
    )
    min_english_fraction: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Words of a caption that are common English ones; below it is another language "
        "(judged from five words on).",
    )
    max_other_script_fraction: float = Field(
        default=0.1, ge=0, le=1, description="Letters of a caption that are not Latin ones."
    )
    max_flagged_fraction: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Captions that may be too short, too long, cut, not English or repeated, each, "
        "before a message is given.",
    )
    max_norm_factor: float = Field(
        default=3.0,
        gt=1,
        description="Norms of embeddings further than this many times from the median are odd.",
    )
    min_coverage: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Share of the kept images that should have a usable caption (stage assemble).",
    )


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
        default=32,
        ge=1,
        description="Images captioned at once, and saved at once. On a CPU its cores share "
        "them: at least eight each.",
    )
    num_train_faces: int = Field(
        default=1500,
        ge=0,
        description="Drawn faces that teach captions, where the tiny Janus is trained here.",
    )
    max_failed_fraction: float = Field(default=0.2, ge=0, le=1)
    checks: CaptionChecks = CaptionChecks()
    num_examples: int = Field(
        default=24, ge=1, description="Images on the page of captions of a partition."
    )
