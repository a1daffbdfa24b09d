"""Where the photographs are and what is taken from them."""

from pathlib import Path

from pydantic import Field

from agetf_pipeline.config.base import Section
from agetf_pipeline.config.storage import StorageUri


class SourceConfig(Section):
    """One corpus on disk."""

    path: Path | None = Field(
        default=None,
        description="Folder; None: data/raw/<corpus> of the workspace. Never written to, except by "
        "`agetf pull`, below data/raw.",
    )
    source_uri: StorageUri | None = Field(
        default=None,
        exclude=True,
        description="Folder in shared storage (s3://, gs://, file:///, ...) that `agetf pull` "
        "copies from. Part of no fingerprint.",
    )
    aligned: bool = Field(
        default=True,
        description="Faces already fill the image (FFHQ crops). False: find and crop them.",
    )
    follow_links: bool = Field(
        default=False,
        description="Whether links inside the folder may lead out of it.",
    )


class ImageLimits(Section):
    """What is read at all. Checked on the header, before any pixel is decoded."""

    max_pixels: int = Field(default=40_000_000, ge=1)
    max_bytes: int = Field(default=64_000_000, ge=1)
    min_side_px: int = Field(default=32, ge=1)
    max_aspect: float = Field(default=4.0, ge=1)


class IngestConfig(Section):
    """Reading corpora into the tables `images` and `quarantine`."""

    ffhq_aging: SourceConfig = SourceConfig()
    caf: SourceConfig = SourceConfig()
    limits: ImageLimits = ImageLimits()
    face_px: int = Field(
        default=256, ge=64, description="Size of the crops of faces that were found."
    )
    max_failed_fraction: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Share of a partition's files in quarantine, duplicates aside, that stops it.",
    )
    chunk_size: int = Field(default=128, ge=1)
    num_workers: int = Field(default=2, ge=1, description="Processes that decode.")
    max_decode_s: float = Field(
        default=60.0, gt=0, description="Per image; a decoder that takes longer is stopped."
    )
