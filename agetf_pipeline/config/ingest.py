"""Where the photographs are and what is taken from them."""

from pathlib import Path

from pydantic import Field, model_validator

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

    max_pixels: int = Field(default=40_000_000, ge=1, le=200_000_000)
    max_bytes: int = Field(default=64_000_000, ge=1, le=400_000_000)
    min_side_px: int = Field(default=32, ge=1)
    max_aspect: float = Field(default=4.0, ge=1)
    max_memory_mib: int | None = Field(
        default=None,
        ge=1,
        description="Address space of a decoding process. None: from max_pixels and max_bytes, "
        "1983 with their defaults.",
    )

    def memory_mib(self) -> int:
        """Return the address space of a decoding process, MiB.

        At 40 million pixels 1173 MiB were measured at most (a lossless WebP, with OpenCV loaded):
        22 bytes a pixel, and 285 MiB for the libraries.
        """
        needed = 32 * self.max_pixels + 2 * self.max_bytes
        return self.max_memory_mib or 640 + -(-needed // 2**20)

    @model_validator(mode="after")
    def _leave_enough_memory(self) -> "ImageLimits":
        # With less, pictures within the limits would be refused as damaged: decoders often cannot
        # say that it was memory that they lacked.
        least = 320 + -(-(24 * self.max_pixels + self.max_bytes) // 2**20)
        if self.max_memory_mib is not None and self.max_memory_mib < least:
            raise ValueError(
                f"Expected max_memory_mib of {least} at least, for max_pixels={self.max_pixels} "
                f"and max_bytes={self.max_bytes}; found {self.max_memory_mib}. Raise it, or lower "
                "the others."
            )
        return self


class ArchiveLimits(Section):
    """What `agetf unpack` takes. An archive that exceeds any of these is refused as a whole."""

    max_members: int = Field(default=500_000, ge=1)
    max_bytes: int = Field(default=500_000_000_000, ge=1, description="Unpacked, in all.")
    max_member_bytes: int = Field(default=400_000_000, ge=1, description="Unpacked, of one file.")
    max_ratio: float = Field(
        default=50.0,
        ge=1,
        description="Bytes unpacked for a byte of the archive. Photographs hardly shrink.",
    )
    max_path_bytes: int = Field(default=1024, ge=1)
    max_depth: int = Field(default=16, ge=0, description="Folders above a file.")


class IngestConfig(Section):
    """Reading corpora into the tables `images` and `quarantine`."""

    ffhq_aging: SourceConfig = SourceConfig()
    caf: SourceConfig = SourceConfig()
    limits: ImageLimits = ImageLimits()
    archives: ArchiveLimits = ArchiveLimits()
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
