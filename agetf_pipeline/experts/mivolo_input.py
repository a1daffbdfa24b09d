"""How pictures enter the published MiVOLO: a letterbox on black, then ImageNet's normalisation.

What the official preparation does was read from its source and is held by golden values
(docs/golden_values.md): OpenCV's bilinear filter on bytes without antialiasing, the longer side
scaled to the input (up or down), black on the sides with the odd pixel right or below. Officially
the channels are turned from OpenCV's BGR to RGB; pictures here are RGB already. A missing picture
is a black one, normalised like any other: not zeros.

Shapes: N pictures, H height, W width, C channels.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.experts.preprocess import PROFILES, normalise

PROFILE = "imagenet"

PUBLISHED_FACE_CROP = 0.8
"""Central part of an aligned face that published weights see, as a fraction of its side.

They were trained on a detector's tight box: hairline to chin, ear to ear. FFHQ's square is wider:
about four times the distance of the eyes, 25 cm on an average adult, of which the face's 18 to
19 cm are 0.73; its middle lies 1.5 cm above the middle of the face, so that fraction would cut
the chin. 0.8 is a guess between the two from these average measures, not a fitted number. 1.0 is
right for faces that a detector has cut tightly.
"""


def central_crop(face_HWC: np.ndarray, fraction: float) -> np.ndarray:
    """Return the central part of a picture.

    Args:
        face_HWC: uint8 (H, W, 3).
        fraction: Of each side, above 0 up to 1 (the picture itself).
    """
    if fraction == 1.0:
        return face_HWC
    height, width = face_HWC.shape[:2]
    kept_height, kept_width = (max(1, round(side * fraction)) for side in (height, width))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return face_HWC[top : top + kept_height, left : left + kept_width]


def letterbox(picture_HWC: np.ndarray, input_px: int) -> np.ndarray:
    """Scale a picture into a square, keeping its proportions, the rest black.

    Args:
        picture_HWC: uint8 (H, W, 3).
        input_px: Side of the square.

    Returns:
        uint8 (input_px, input_px, 3).
    """
    height, width = picture_HWC.shape[:2]
    scale = min(input_px / height, input_px / width)
    # A sliver keeps one pixel, which officially is an error of OpenCV.
    rows, columns = (max(1, round(side * scale)) for side in (height, width))
    if (rows, columns) != (height, width):
        picture_HWC = cv2.resize(
            np.ascontiguousarray(picture_HWC), (columns, rows), interpolation=cv2.INTER_LINEAR
        )
    if rows == columns == input_px:
        return picture_HWC
    square_HWC = np.zeros((input_px, input_px, 3), np.uint8)
    top, left = (input_px - rows) // 2, (input_px - columns) // 2
    square_HWC[top : top + rows, left : left + columns] = picture_HWC
    return square_HWC


def letterboxed(
    pictures: Sequence[np.ndarray | None] | np.ndarray, input_px: int, device: torch.device
) -> Tensor:
    """Return pictures as the published network's input.

    Args:
        pictures: uint8 (H, W, 3), RGB, of any sizes; None where missing.
        input_px: Side of the network's input.
        device: Where the network is.

    Returns:
        float32 (N, 3, input_px, input_px), ImageNet-normalised.

    Raises:
        DataError: A picture has another shape or type.
    """
    bytes_NHWC = np.zeros((len(pictures), input_px, input_px, 3), np.uint8)
    for index, picture in enumerate(pictures):
        if picture is not None:
            _require_picture(picture)
            bytes_NHWC[index] = letterbox(picture, input_px)
    x_NCHW = torch.from_numpy(bytes_NHWC).to(device).permute(0, 3, 1, 2).float()
    return normalise(x_NCHW, PROFILES[PROFILE])


def _require_picture(picture: np.ndarray) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise DataError(
            f"Expected a picture as uint8 (H, W, 3); found {picture.dtype} {picture.shape}. "
            "Read it with agetf_pipeline.data.images."
        )
