"""Finding the face in a photograph, and cutting it out as FFHQ's images are cut.

The detector is OpenCV's Haar cascades, which ship with it: frontal faces, nothing to download. It
is a fallback, not the state of the art; another one takes its place through `FaceDetector`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np

# FFHQ's recipe puts the square's half side at twice the distance of the eyes, and its centre a
# tenth of the way from the eyes to the mouth below them (which is about as far as the eyes apart).
_SIDE_OF_EYE_DISTANCE = 4.0
_CENTRE_BELOW_EYES = 0.1
# The same square from a Haar box, where the eyes were not found: measured on aligned FFHQ faces.
_SIDE_OF_BOX = 1.65
_CENTRE_DOWN_BOX = 0.43

_SEARCH_PX = 900
_MIN_FACE_PX = 36
_STRONG_WEIGHT = 56.0
_BESIDE_MAIN = 0.4
_MAX_TILT_DEGREES = 35.0


@dataclass(frozen=True)
class FoundFace:
    """A face, in pixels of the image: its square box and, where they were found, its eyes.

    Attributes:
        left: Left edge of the box.
        top: Upper edge of the box.
        side: Side of the box.
        eyes: Centres ((x, y) of the one on the left of the picture, then of the other), or None.
    """

    left: float
    top: float
    side: float
    eyes: tuple[tuple[float, float], tuple[float, float]] | None = None


@dataclass(frozen=True)
class _Candidate:
    """A box that may be a face, and whether the cascades alone confirm it."""

    box: FoundFace
    confirmed: bool


class FaceDetector(Protocol):
    """Anything that finds faces in an upright picture, uint8 (H, W, 3), RGB."""

    def find(self, rgb: np.ndarray) -> list[FoundFace]:
        """Return the faces that it is sure of, in any order."""
        ...


class HaarDetector:
    """OpenCV's frontal-face cascades; a face must be confirmed by a second sign.

    A cascade alone sees faces in walls and leaves. A box counts where the stricter cascade is very
    sure of it, where both cascades agree, or where two eyes lie in it as eyes do.
    """

    def __init__(self) -> None:
        self._strict = _cascade("haarcascade_frontalface_alt2.xml")
        self._loose = _cascade("haarcascade_frontalface_default.xml")
        self._eyes = (
            _cascade("haarcascade_eye_tree_eyeglasses.xml"),
            _cascade("haarcascade_eye.xml"),
        )

    def find(self, rgb: np.ndarray) -> list[FoundFace]:
        """Return the confirmed faces; in a second pass, if none, with local contrast evened out."""
        for small, grey, scale in _prepared(rgb):
            strict = _boxes(self._strict, small, scale)
            faces: list[FoundFace] = []
            for candidate in _candidates(strict, _boxes(self._loose, small, scale)):
                box = candidate.box
                if any(_overlap(box, face) > 0.3 for face in faces):
                    continue
                eyes = self._find_eyes(grey, box)
                if eyes is not None or candidate.confirmed:
                    faces.append(FoundFace(box.left, box.top, box.side, eyes))
            if faces:
                return faces
        return []

    def has_face(self, rgb: np.ndarray) -> bool:
        """Return whether `find` finds a face, in a fraction of its time.

        The looser cascade and the eyes are only asked where they decide.
        """
        for small, grey, scale in _prepared(rgb):
            strict = _boxes(self._strict, small, scale)
            if any(weight >= _STRONG_WEIGHT for _, weight in strict):
                return True
            candidates = _candidates(strict, _boxes(self._loose, small, scale))
            if any(candidate.confirmed for candidate in candidates):
                return True
            if any(self._find_eyes(grey, candidate.box) is not None for candidate in candidates):
                return True
        return False

    def _find_eyes(
        self, grey: np.ndarray, box: FoundFace
    ) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """Return the two eyes in the upper part of a box, if one on each side is where eyes are."""
        import cv2

        top, left = max(0, round(box.top)), max(0, round(box.left))
        upper = grey[top : top + round(0.6 * box.side), left : left + round(box.side)]
        if min(upper.shape) < 8:
            return None
        zoom = 200 / box.side
        upper = cv2.resize(upper, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
        for cascade in self._eyes:
            found = cascade.detectMultiScale(upper, 1.05, 4, minSize=(28, 28), maxSize=(70, 70))
            centres = [
                (float(x + w / 2) / 200, float(y + h / 2) / 200, float(w)) for x, y, w, h in found
            ]
            pairs = [
                (abs(first[1] - second[1]) + abs(first[0] + second[0] - 1), first, second)
                for first in centres
                for second in centres
                if _are_eyes(first, second)
            ]
            if pairs:
                _, first, second = min(pairs)
                return (
                    (left + first[0] * box.side, top + first[1] * box.side),
                    (left + second[0] * box.side, top + second[1] * box.side),
                )
        return None


def by_prominence(faces: list[FoundFace], width_px: int, height_px: int) -> list[FoundFace]:
    """Return the faces, the largest first, nearness to the middle deciding between equals."""

    def prominence(face: FoundFace) -> float:
        across = (face.left + face.side / 2) / width_px - 0.5
        down = (face.top + face.side / 2) / height_px - 0.5
        return face.side * (1 - 0.5 * math.hypot(across, down))

    return sorted(faces, key=prominence, reverse=True)


def choose_face(faces: list[FoundFace], width_px: int, height_px: int) -> FoundFace | None:
    """Return the most prominent face; None of none."""
    return next(iter(by_prominence(faces, width_px, height_px)), None)


def are_several(faces: list[FoundFace], main: FoundFace) -> bool:
    """Whether another face is large enough beside the main one that a person may mean it."""
    return sum(other.side > _BESIDE_MAIN * main.side for other in faces) > 1


def crop_face(rgb: np.ndarray, face: FoundFace, size_px: int) -> np.ndarray:
    """Cut a face out, as FFHQ does: an upright square around it, mirrored beyond the picture.

    Args:
        rgb: Picture, uint8 (H, W, 3).
        face: The face. With eyes, the square turns with the line between them.
        size_px: Side of the result.

    Returns:
        uint8 (size_px, size_px, 3).

    Source: FFHQ's alignment recipe (NVlabs/ffhq-dataset), with the mouth's place taken from the
    distance of the eyes, which Haar cascades find more surely.
    """
    import cv2

    centre_x, centre_y, side, angle = _square(face)
    # Averages first where the face is much larger than the result: warpAffine alone would alias.
    shrink = max(1, int(side / size_px))
    if shrink > 1:
        height, width = rgb.shape[:2]
        size = (max(1, width // shrink), max(1, height // shrink))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        centre_x, centre_y = centre_x * size[0] / width, centre_y * size[1] / height
        side = side * size[0] / width
    step = side / size_px
    cosine, sine = step * math.cos(angle), step * math.sin(angle)
    middle = (size_px - 1) / 2
    # From a pixel of the result to one of the picture.
    matrix = np.array(
        [
            [cosine, -sine, centre_x - 0.5 - (cosine - sine) * middle],
            [sine, cosine, centre_y - 0.5 - (sine + cosine) * middle],
        ]
    )
    return cv2.warpAffine(
        rgb,
        matrix,
        (size_px, size_px),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def find_and_crop(
    rgb: np.ndarray, size_px: int, detector: FaceDetector
) -> tuple[np.ndarray, list[str]] | None:
    """Find the main face of a photograph and cut it out.

    Returns:
        The crop, uint8 (size_px, size_px, 3), and what a person should know of it
        (`several_faces`, `eyes_not_found`, `low_res_face`); None where no face was found.
    """
    faces = detector.find(rgb)
    face = choose_face(faces, rgb.shape[1], rgb.shape[0])
    if face is None:
        return None
    return crop_face(rgb, face, size_px), flags_of(face, faces, size_px)


def flags_of(face: FoundFace, faces: list[FoundFace], size_px: int) -> list[str]:
    """Return what a person should know of one of the faces found, cut out at `size_px`."""
    flags = ["face_cropped"]
    if are_several(faces, face):
        flags.append("several_faces")
    if face.eyes is None:
        flags.append("eyes_not_found")
    if _square(face)[2] < size_px / 2:
        flags.append("low_res_face")
    return flags


@cache
def default_detector() -> HaarDetector:
    """Return the detector of this process, loaded once."""
    return HaarDetector()


def detector_version() -> str:
    """Return what the default detector is: its cascades ship with OpenCV."""
    import cv2

    return f"OpenCV {cv2.__version__}"


def _square(face: FoundFace) -> tuple[float, float, float, float]:
    """Return the centre (x, y), the side and the angle (radians) of the square to cut out."""
    if face.eyes is None:
        centre_y = face.top + _CENTRE_DOWN_BOX * face.side
        return face.left + face.side / 2, centre_y, _SIDE_OF_BOX * face.side, 0.0
    (left_x, left_y), (right_x, right_y) = face.eyes
    distance = math.hypot(right_x - left_x, right_y - left_y)
    angle = math.atan2(right_y - left_y, right_x - left_x)
    below = _CENTRE_BELOW_EYES * distance
    centre_x = (left_x + right_x) / 2 - math.sin(angle) * below
    centre_y = (left_y + right_y) / 2 + math.cos(angle) * below
    return centre_x, centre_y, _SIDE_OF_EYE_DISTANCE * distance, angle


def _are_eyes(first: tuple[float, float, float], second: tuple[float, float, float]) -> bool:
    """Whether two finds (x, y as shares of the box, size) lie as a left and a right eye do."""
    across, down = second[0] - first[0], second[1] - first[1]
    return (
        0.28 < across < 0.52
        and abs(math.degrees(math.atan2(down, across))) < _MAX_TILT_DEGREES
        and 0.2 < first[1] < 0.52
        and 0.2 < second[1] < 0.52
        and abs(first[0] + second[0] - 1) < 0.24
    )


def _overlap(first: FoundFace, second: FoundFace) -> float:
    """Return the intersection over union of two boxes."""
    across = min(first.left + first.side, second.left + second.side) - max(first.left, second.left)
    down = min(first.top + first.side, second.top + second.side) - max(first.top, second.top)
    inside = max(0.0, across) * max(0.0, down)
    return inside / (first.side**2 + second.side**2 - inside)


def _prepared(rgb: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Yield the picture as it is searched, in two passes: small, in grey, and the scale between."""
    import cv2

    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, _SEARCH_PX / max(grey.shape))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    yield small, grey, scale
    yield cv2.createCLAHE(2.0, (8, 8)).apply(small), grey, scale


def _candidates(
    strict: list[tuple[FoundFace, float]], loose: list[tuple[FoundFace, float]]
) -> list[_Candidate]:
    """Return the boxes of both cascades, the surest first."""
    candidates = []
    for box, weight in sorted(strict + loose, key=lambda item: -item[1]):
        agreed = any(_overlap(box, a) > 0.4 for a, _ in strict) and any(
            _overlap(box, b) > 0.4 for b, _ in loose
        )
        candidates.append(_Candidate(box, agreed or weight >= _STRONG_WEIGHT))
    return candidates


def _boxes(cascade: Any, small: np.ndarray, scale: float) -> list[tuple[FoundFace, float]]:
    """Return the finds of a cascade in the picture's own pixels, with their weights."""
    if min(small.shape) < _MIN_FACE_PX:
        return []
    found, _, weights = cascade.detectMultiScale3(
        small, 1.1, 4, minSize=(_MIN_FACE_PX, _MIN_FACE_PX), outputRejectLevels=True
    )
    return [
        (
            FoundFace(float(x) / scale, float(y) / scale, float(w) / scale),
            float(np.ravel(weight)[0]),
        )
        for (x, y, w, _), weight in zip(found, weights, strict=True)
    ]


def _cascade(name: str) -> Any:
    import cv2

    return cv2.CascadeClassifier(cv2.data.haarcascades + name)  # type: ignore[attr-defined]
