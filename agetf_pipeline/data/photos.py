"""One photograph of any size, and the face in it that a person meant."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.faces import (
    FaceDetector,
    FoundFace,
    are_several,
    by_prominence,
    crop_face,
    default_detector,
    flags_of,
)

FaceChoice = Literal["only", "largest"] | int
"""Which of several faces: `only` refuses to choose, a number counts from 1, the largest first."""

_CROP_PX = 512
_MIN_SIDE_PX = 16
_MAX_ASPECT = 10.0


@dataclass(frozen=True)
class PhotoFace:
    """The face of a photograph.

    Attributes:
        rgb: uint8 (H, H, 3), RGB, aligned as FFHQ's faces are.
        flags: What a person may want to know: `several_faces`, `exif_rotated`, `low_res_face`...
    """

    rgb: np.ndarray
    flags: tuple[str, ...]


def face_of_photo(
    photo: "Path | str | np.ndarray",
    aligned: bool = False,
    choice: FaceChoice = "only",
    crop_px: int = _CROP_PX,
    detector: FaceDetector | None = None,
) -> PhotoFace:
    """Return the face of a photograph, found and aligned as FFHQ does it.

    Args:
        photo: A JPEG, PNG or WebP file, or its pixels, uint8 (H, W, 3), RGB.
        aligned: The face fills the picture already: the middle square is taken, nothing searched.
        choice: Which face where there are several.
        crop_px: Side of the face that is cut out.
        detector: By default the one that ships with OpenCV.

    Raises:
        DataError: The photograph cannot be read, no face or more than one is found, or there is no
            face of that number.
    """
    name = "the picture given" if isinstance(photo, np.ndarray) else str(photo)
    rgb, flags = read_photo(photo)
    if aligned:
        return PhotoFace(middle_square(rgb), flags)
    height, width = rgb.shape[:2]
    faces = (detector or default_detector()).find(rgb)
    ranked = by_prominence(faces, width, height)
    face = _chosen(ranked, choice, name, width, height)
    return PhotoFace(crop_face(rgb, face, crop_px), (*flags, *flags_of(face, faces, crop_px)))


def read_photo(photo: "Path | str | np.ndarray") -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a photograph's upright pixels, uint8 (H, W, 3), RGB, and what was done to them.

    Raises:
        DataError: There is no such file, or it is no photograph that is taken.
    """
    from agetf_pipeline.data.file_bytes import TooManyBytesError, read_at_most
    from agetf_pipeline.data.images import MAX_BYTES, MAX_PIXELS
    from agetf_pipeline.data.probe import Limits, Rejection, probe, too_many_bytes

    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
            raise DataError(
                f"Expected a picture as uint8 (H, W, 3), RGB; found {photo.dtype} {photo.shape}. "
                "Convert it, or give the file's path."
            )
        return photo, ()
    try:
        data = read_at_most(Path(photo), MAX_BYTES)
    except TooManyBytesError as error:
        detail = too_many_bytes(error.num_bytes, MAX_BYTES).detail
        raise DataError(f"Expected a photograph at {photo}; found: {detail}") from error
    except OSError as error:
        raise DataError(
            f"Expected a photograph at {photo}; the file cannot be read: {error.strerror}."
        ) from error
    # A person gives one picture and waits for it: larger ones than a corpus would take.
    probed = probe(data, Limits(MAX_PIXELS, MAX_BYTES, _MIN_SIDE_PX, _MAX_ASPECT))
    if isinstance(probed, Rejection):
        raise DataError(f"Expected a photograph at {photo}; found: {probed.detail}")
    facts, rgb = probed
    return rgb, facts.flags


def _chosen(
    ranked: list[FoundFace], choice: FaceChoice, name: str, width: int, height: int
) -> FoundFace:
    """Return the face meant; `ranked` are all that were found, the most prominent first."""
    where = "; ".join(
        f"{number}: {face.side:.0f} px wide around ({face.left + face.side / 2:.0f}, "
        f"{face.top + face.side / 2:.0f})"
        for number, face in enumerate(ranked, start=1)
    )
    if not ranked:
        raise DataError(
            f"Expected a face in {name} ({width} x {height} px); found none. Frontal, upright "
            "faces of a 25th of the longer side or more, and of 36 px at least, are looked for. "
            "If the face fills the picture already, say --aligned (aligned=True); otherwise turn "
            "it upright or cut it closer."
        )
    if isinstance(choice, int):
        if not 1 <= choice <= len(ranked):
            raise DataError(
                f"Expected face {choice} in {name} ({width} x {height} px); found {len(ranked)} "
                f"({where}). Give a number from 1 to {len(ranked)}."
            )
        return ranked[choice - 1]
    if choice == "only" and are_several(ranked, ranked[0]):
        raise DataError(
            f"Expected one face in {name} ({width} x {height} px); found {len(ranked)} ({where}). "
            f"Say which: --face largest, or --face 1 to {len(ranked)}."
        )
    return ranked[0]


def middle_square(rgb: np.ndarray) -> np.ndarray:
    """Return the middle square of a picture, (H, W, C)."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return rgb[top : top + side, left : left + side]
