"""Reading images that ingest accepted, always the same way; batches of faces for the networks."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_bytes
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.file_bytes import TooManyBytesError, read_at_most

if TYPE_CHECKING:
    import polars as pl
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP")
"""What Pillow may open; it knows some thirty formats more, most of them hardly ever tested."""

MAX_PIXELS = 200_000_000
"""Of any picture, whatever the configuration says: pixels take up to 24 bytes while decoded."""

MAX_BYTES = 400_000_000
"""Of any picture's file, whatever the configuration says."""

_EXIF_ORIENTATION = 0x0112


def orientation_of(image: "Image") -> int:
    """Return the EXIF orientation, 1-8; 1 (upright) where there is none or it cannot be read.

    A PNG may carry it after its pixels: load the image first.
    """
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # EXIF blocks come broken in every way; the pixels are none the worse
        return 1
    return value if value in range(1, 9) else 1


def to_rgb(image: "Image") -> "Image":
    """Return an upright RGB picture of any mode that ingest accepts.

    EXIF rotation is applied; 16-bit grey is shifted to 8 bits (Pillow's own conversion clips it).
    """
    from PIL import Image as PillowImage

    # From orientation 2 on; ImageOps.exif_transpose would also write EXIF, and fail on broken ones.
    turns = (
        PillowImage.Transpose.FLIP_LEFT_RIGHT,
        PillowImage.Transpose.ROTATE_180,
        PillowImage.Transpose.FLIP_TOP_BOTTOM,
        PillowImage.Transpose.TRANSPOSE,
        PillowImage.Transpose.ROTATE_270,
        PillowImage.Transpose.TRANSVERSE,
        PillowImage.Transpose.ROTATE_90,
    )
    orientation = orientation_of(image)
    if image.mode.startswith("I"):
        values = np.asarray(image) >> 8
        image = PillowImage.fromarray(values.clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    rgb = image.convert("RGB")
    return rgb if orientation == 1 else rgb.transpose(turns[orientation - 2])


def open_picture(data: bytes) -> "Image":
    """Open a picture from its bytes, reading its header alone.

    Raises:
        Exception: Whatever Pillow raises on what is no JPEG, PNG or WebP file.
    """
    from PIL import Image as PillowImage

    # Pillow warns from here on and raises from twice as many; its own limit is lower than ours.
    PillowImage.MAX_IMAGE_PIXELS = MAX_PIXELS
    # It warns of large pictures and broken EXIF. Not `catch_warnings`, which threads undo for each
    # other.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return PillowImage.open(io.BytesIO(data), formats=FORMATS)


def read_rgb(path: Path, image_id: str | None = None) -> np.ndarray:
    """Read an image file, uint8 (H, W, 3), RGB, upright.

    Args:
        path: The file.
        image_id: sha256 that its bytes must have: of an original, the one that ingest saw. The
            bytes that are hashed are those that are decoded. None: whatever is there is read.

    Raises:
        DataError: The file is gone, is another one than ingest saw, or cannot be decoded any more.
    """
    remedy = "It was accepted by ingest: restore the file, or run ingest again."
    expected = f"Expected a readable image at {path}; found"
    try:
        data = read_at_most(path, MAX_BYTES)
        if image_id is not None and hash_bytes(data) != image_id:
            raise DataError(
                f"{expected}: other content. The file changed since ingest: restore it, or run "
                "ingest again."
            )
        with open_picture(data) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} px, over {MAX_PIXELS} pixels")
            image.load()
            return np.asarray(to_rgb(image))
    except (DataError, MemoryError):
        raise
    except TooManyBytesError as error:
        raise DataError(f"{expected}: {error}, over {MAX_BYTES}. {remedy}") from error
    except Exception as error:  # decoders raise whatever they like on hostile bytes
        raise DataError(f"{expected}: {error or type(error).__name__}. {remedy}") from error


def resize_rgb(rgb: np.ndarray, size_px: int) -> np.ndarray:
    """Resize an image, uint8 (H, W, 3), to a square of `size_px` (Lanczos); aspect is not kept."""
    from PIL import Image as PillowImage

    if rgb.shape[:2] == (size_px, size_px):
        return rgb
    image = PillowImage.fromarray(rgb).resize((size_px, size_px), PillowImage.Resampling.LANCZOS)
    return np.asarray(image)


def load_faces(
    workspace: Workspace,
    paths: "pl.Series | Sequence[str]",
    size_px: int,
    image_ids: "pl.Series | Sequence[str | None] | None" = None,
) -> np.ndarray:
    """Read face images of a table's `face_path` column, uint8 (N, size_px, size_px, 3), RGB.

    Args:
        workspace: The workspace.
        paths: The column.
        size_px: Side to resize to.
        image_ids: What `original_ids` says of the same rows, to notice files that changed since
            ingest; None: they are read as they are.

    Raises:
        DataError: See `read_rgb`.
    """
    ids = [None] * len(paths) if image_ids is None else image_ids
    faces = [
        resize_rgb(read_rgb(workspace.resolve(path), image_id), size_px)
        for path, image_id in zip(paths, ids, strict=True)
    ]
    return np.stack(faces) if faces else np.empty((0, size_px, size_px, 3), np.uint8)


def original_ids(images: "pl.DataFrame") -> list[str | None]:
    """Return the `image_id` of rows of `images` whose face is the original file, None of others.

    An `image_id` is the hash of the original's bytes; crops and copies have hashes of their own.
    """
    return [
        image_id if face_path == path else None
        for image_id, path, face_path in images.select("image_id", "path", "face_path").iter_rows()
    ]
