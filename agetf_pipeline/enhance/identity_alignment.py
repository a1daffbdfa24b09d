"""Cutting the same window out of an original and its enhanced copy, as face recognition expects it.

AdaFace and ArcFace were trained on faces moved by a similarity transform so that the eyes, the nose
and the corners of the mouth lie on five fixed points of a 112 px square. Our faces are squares
after FFHQ's recipe, which is wider: the same five points lie nearer to its middle, upright already.
So a window of the square is cut out. Where the eyes are found (`data.faces`), it is placed, turned
and scaled by them, a two-point similarity transform. Otherwise it is the window that FFHQ's recipe
implies for a face with the template's proportions.

Both pictures get one window, in shares of the square's side: the guard asks whether enhancement
changed the face, and an alignment found twice would add its own jitter to the answer.

Found on 12 aligned FFHQ faces of 270 px: eyes in 10; in the median at 0.377, 0.473 and 0.622, 0.476
of the side, where the implied window expects them at 0.380 and 0.620, 0.472. How much similarity a
five-point alignment would add was not measured.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agetf_pipeline.data.faces import FaceDetector, choose_face

Alignment = Literal["eyes", "window", "whole"]

# ArcFace's template, in shares of its side: the middle between the eyes, their distance, and the
# distance from there to the middle of the mouth (Deng et al. 2019; five points at 112 px).
_EYES_X, _EYES_Y, _EYE_DISTANCE = 55.913 / 112, 51.599 / 112, 35.237 / 112
_EYES_TO_MOUTH = 40.685 / 112
# FFHQ's square is the larger of 4.0 eye distances and 3.6 times the way from eyes to mouth, its
# centre a tenth of that way below the eyes. For the template's proportions the mouth decides.
_FFHQ_SIDE_OF_MOUTH, _FFHQ_CENTRE_BELOW = 3.6, 0.1

_MAX_SCALE_OFF = 1.35
_MAX_MOVED = 0.12


@dataclass(frozen=True)
class Window:
    """A square part of a square picture, in shares of the picture's side.

    Attributes:
        centre_x: Of the window.
        centre_y: Of the window.
        side: Of the window.
        angle: By which it is turned, radians.
        found_by: `eyes` where it was placed by detected eyes, else `window`.
    """

    centre_x: float
    centre_y: float
    side: float
    angle: float
    found_by: Alignment


def ffhq_window() -> Window:
    """Return the window that FFHQ's recipe implies for a face of the template's proportions."""
    eyes_to_mouth = 1 / _FFHQ_SIDE_OF_MOUTH
    side = eyes_to_mouth / _EYES_TO_MOUTH
    eyes_y = 0.5 - _FFHQ_CENTRE_BELOW * eyes_to_mouth
    return Window(
        0.5 + (0.5 - _EYES_X) * side, eyes_y + (0.5 - _EYES_Y) * side, side, 0.0, "window"
    )


def find_window(original: np.ndarray, enhanced: np.ndarray, detector: FaceDetector) -> Window:
    """Return the window of a face, placed by its eyes where they are found.

    The enhanced copy is searched where the original shows none: old small pictures hide them. Eyes
    that would put the window far from where FFHQ's recipe has it are not believed.

    Args:
        original: uint8 (H, W, 3).
        enhanced: Its copy, uint8 of any size.
        detector: Finds faces and eyes.
    """
    expected = ffhq_window()
    for picture in (original, enhanced):
        height, width = picture.shape[:2]
        face = choose_face(detector.find(picture), width, height)
        if face is None or face.eyes is None:
            continue
        window = _by_eyes(face.eyes, width, height)
        scale = max(window.side / expected.side, expected.side / window.side)
        moved = math.hypot(window.centre_x - expected.centre_x, window.centre_y - expected.centre_y)
        if scale < _MAX_SCALE_OFF and moved < _MAX_MOVED:
            return window
    return expected


def cut_out(rgb: np.ndarray, window: Window, size_px: int) -> np.ndarray:
    """Return a window of a picture, uint8 (size_px, size_px, 3); beyond the edge it is mirrored.

    A picture with unequal sides is taken as squeezed: the window's shares are of each side.

    Args:
        rgb: uint8 (H, W, 3).
        window: What to cut out.
        size_px: Side of the result.
    """
    import cv2

    # Reduced to about the window's scale first, by area: warpAffine alone would alias.
    side = max(size_px, round(size_px / window.side))
    how = cv2.INTER_AREA if min(rgb.shape[:2]) > side else cv2.INTER_CUBIC
    square = (
        rgb if rgb.shape[:2] == (side, side) else cv2.resize(rgb, (side, side), interpolation=how)
    )
    step = window.side * side / size_px
    cosine, sine = step * math.cos(window.angle), step * math.sin(window.angle)
    middle = (size_px - 1) / 2
    centre_x, centre_y = window.centre_x * side - 0.5, window.centre_y * side - 0.5
    matrix = np.array(
        [
            [cosine, -sine, centre_x - (cosine - sine) * middle],
            [sine, cosine, centre_y - (sine + cosine) * middle],
        ]
    )
    return cv2.warpAffine(
        square, matrix, (size_px, size_px),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101,
    )  # fmt: skip


def _by_eyes(
    eyes: tuple[tuple[float, float], tuple[float, float]], width: int, height: int
) -> Window:
    """The window that puts two eyes, in pixels, where the template has them."""
    (left_x, left_y), (right_x, right_y) = ((x / width, y / height) for x, y in eyes)
    side = math.hypot(right_x - left_x, right_y - left_y) / _EYE_DISTANCE
    angle = math.atan2(right_y - left_y, right_x - left_x)
    across, down = (0.5 - _EYES_X) * side, (0.5 - _EYES_Y) * side
    return Window(
        (left_x + right_x) / 2 + math.cos(angle) * across - math.sin(angle) * down,
        (left_y + right_y) / 2 + math.sin(angle) * across + math.cos(angle) * down,
        side,
        angle,
        "eyes",
    )
