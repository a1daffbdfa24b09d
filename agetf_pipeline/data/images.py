"""Reading images that ingest accepted, always the same way; batches of faces for the networks."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace

if TYPE_CHECKING:
    import polars as pl
    from PIL.Image import Image

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


def read_rgb(path: Path) -> np.ndarray:
    """Read an image file, uint8 (H, W, 3), RGB, upright.

    Raises:
        DataError: The file is gone or cannot be decoded any more.
    """
    from PIL import Image as PillowImage

    try:
        with PillowImage.open(path) as image:
            image.load()
            return np.asarray(to_rgb(image))
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise DataError(
            f"Expected a readable image at {path}; found: {error}. It was accepted by ingest: "
            "restore the file, or run ingest again."
        ) from error


def resize_rgb(rgb: np.ndarray, size_px: int) -> np.ndarray:
    """Resize an image, uint8 (H, W, 3), to a square of `size_px` (Lanczos); aspect is not kept."""
    from PIL import Image as PillowImage

    if rgb.shape[:2] == (size_px, size_px):
        return rgb
    image = PillowImage.fromarray(rgb).resize((size_px, size_px), PillowImage.Resampling.LANCZOS)
    return np.asarray(image)


def load_faces(workspace: Workspace, paths: "pl.Series | list[str]", size_px: int) -> np.ndarray:
    """Read face images of a table's `face_path` column, uint8 (N, size_px, size_px, 3), RGB."""
    faces = [resize_rgb(read_rgb(workspace.resolve(path)), size_px) for path in paths]
    return np.stack(faces) if faces else np.empty((0, size_px, size_px, 3), np.uint8)
