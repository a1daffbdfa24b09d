"""A picture that a person gives to the app: read safely, its face found, or why there is none."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.photos import FaceChoice

_FACE_PX = 512
_MIN_SIDE_PX = 16
_MAX_ASPECT = 10.0

FACE_CHOICES: tuple[tuple[str, str], ...] = (
    ("the only one", "only"),
    ("the largest", "largest"),
    *((f"number {number}", str(number)) for number in range(1, 6)),
)
"""Which face of a picture, as words and as values; numbers count from the most prominent one."""


@dataclass(frozen=True)
class UploadedFace:
    """The face of a picture that was given.

    Attributes:
        rgb: uint8 (512, 512, 3), RGB, aligned as FFHQ's faces are.
        flags: What a person may want to know: `several_faces`, `exif_rotated`, `low_res_face`...
    """

    rgb: np.ndarray
    flags: tuple[str, ...]


def face_choice(value: str) -> FaceChoice:
    """Return which face is meant by one of the values of `FACE_CHOICES`."""
    if value == "largest":
        return "largest"
    return "only" if value == "only" else int(value)


def read_upload(path: Path | str | None, face: FaceChoice = "only") -> UploadedFace:
    """Return the face of a picture that was given.

    Its header has to pass the limits (40 megapixels, 64 MB) before anything is decoded.

    Args:
        path: The file; None where none was given.
        face: Which face where there are several; `only` refuses to choose.

    Raises:
        DataError: There is no picture, it is none or too large, or shows no face or several. The
            message is for a person at the app: it names no path and no option of the command line.
    """
    from agetf_pipeline.data.faces import (
        are_several,
        by_prominence,
        crop_face,
        default_detector,
        flags_of,
    )

    if path is None:
        raise DataError("There is no picture yet: drop one on the page, or pick an example.")
    rgb, flags = _read(Path(path))
    height, width = rgb.shape[:2]
    found = by_prominence(default_detector().find(rgb), width, height)
    if not found:
        raise DataError(
            "No face was found. Upright faces that look at the camera are found, and only those "
            "that are not very small in the picture. Turn it upright, or cut it closer."
        )
    number = face if isinstance(face, int) else 1
    if number > len(found):
        raise DataError(
            f"Face number {number} was asked for and {len(found)} found. "
            f"Choose a number from 1 to {len(found)}."
        )
    if face == "only" and are_several(found, found[0]):
        raise DataError(
            f"{len(found)} faces were found. Choose which one under 'Face': the largest, or a "
            f"number from 1 (the most prominent) to {len(found)}."
        )
    chosen = found[number - 1]
    rgb_face = crop_face(rgb, chosen, _FACE_PX)
    return UploadedFace(rgb_face, (*flags, *flags_of(chosen, found, _FACE_PX)))


def _read(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a picture's upright pixels, uint8 (H, W, 3), RGB, and what was done to them."""
    from agetf_pipeline.data.file_bytes import TooManyBytesError, read_at_most
    from agetf_pipeline.data.probe import Limits, Rejection, probe, too_many_bytes

    limits = Limits(min_side_px=_MIN_SIDE_PX, max_aspect=_MAX_ASPECT)
    try:
        probed = probe(read_at_most(path, limits.max_bytes), limits)
    except TooManyBytesError as error:
        probed = too_many_bytes(error.num_bytes, limits.max_bytes)
    except OSError as error:
        raise DataError(f"The picture cannot be read: {error.strerror}. Give it again.") from error
    if isinstance(probed, Rejection):
        raise DataError(
            f"This picture cannot be used: {probed.detail} "
            "Give a JPEG, PNG or WebP of at most 40 megapixels and 64 MB."
        )
    facts, rgb = probed
    return rgb, facts.flags
