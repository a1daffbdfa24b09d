"""Photographs that a person names on the command line: found, read safely, faces aligned."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agetf_pipeline.core.errors import DataError

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class InputFace:
    """One photograph: its aligned face, or why there is none.

    Attributes:
        path: The file.
        face: uint8 (H, W, 3) RGB, square; None where there is no usable face.
        reason: Why there is no face; None where there is one.
        flags: What a person may want to know: several_faces, exif_rotated...
    """

    path: Path
    face: np.ndarray | None
    reason: str | None
    flags: tuple[str, ...]


def find_files(source: Path) -> list[Path]:
    """Return the image files that `source` names: itself, or those in the folder, sorted.

    Raises:
        DataError: There is no such file or folder, or the folder holds no image file.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"Expected a photograph or a folder at {source}; found nothing.")
    files = sorted(p for p in source.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    if not files:
        raise DataError(
            f"Expected photographs ({', '.join(sorted(_SUFFIXES))}) in {source}; found none."
        )
    return files


def read_face(path: Path, aligned: bool, face_px: int) -> InputFace:
    """Read one photograph and find its face.

    Args:
        path: The file.
        aligned: Whether the face fills the picture already; otherwise it is found and cropped.
        face_px: Side of the crop, in pixels.
    """
    from agetf_pipeline.config.ingest import ImageLimits
    from agetf_pipeline.data.faces import find_face
    from agetf_pipeline.data.images import read_rgb
    from agetf_pipeline.data.probe import Rejection, probe_image

    probed = probe_image(path, ImageLimits())
    if isinstance(probed, Rejection):
        return InputFace(path, None, probed.detail, ())
    rgb = read_rgb(path)
    if aligned:
        return InputFace(path, _centre_square(rgb), None, probed.flags)
    found = find_face(rgb, face_px)
    if isinstance(found, Rejection):
        return InputFace(path, None, found.detail, probed.flags)
    return InputFace(path, found.face, None, (*probed.flags, *found.flags))


def _centre_square(rgb: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return rgb[top : top + side, left : left + side]
