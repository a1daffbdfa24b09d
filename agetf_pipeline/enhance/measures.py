"""What can be measured of a picture without knowing its original: colour, blur, JPEG blocks."""

from dataclasses import dataclass

import cv2
import numpy as np

_BLOCK_PX = 8
_EPSILON = 1e-6


@dataclass(frozen=True)
class Measures:
    """Measured properties of one picture.

    Attributes:
        width_px: Its width.
        height_px: Its height.
        colourfulness: See `colourfulness`.
        sharpness: See `sharpness`.
        blockiness: See `blockiness`.
    """

    width_px: int
    height_px: int
    colourfulness: float
    sharpness: float
    blockiness: float


def measure(rgb_HW3: np.ndarray, target_px: int) -> Measures:
    """Measure a picture.

    Args:
        rgb_HW3: uint8.
        target_px: Sharpness is that of the picture reduced to this shorter side, where it is
            larger: what matters is whether it is sharp at the size that it will be used at.
    """
    height, width = rgb_HW3.shape[:2]
    factor = target_px / min(height, width)
    seen = rgb_HW3
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        seen = cv2.resize(rgb_HW3, size, interpolation=cv2.INTER_AREA)
    return Measures(width, height, colourfulness(rgb_HW3), sharpness(seen), blockiness(rgb_HW3))


def colourfulness(rgb_HW3: np.ndarray) -> float:
    """Return the colourfulness M3, 0 for grey, about 30 to 110 for photographs.

    Source: Hasler and Suesstrunk, "Measuring colorfulness in natural images" (2003).
    """
    red, green, blue = np.moveaxis(rgb_HW3.astype(np.float32), 2, 0)
    red_green, yellow_blue = red - green, 0.5 * (red + green) - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    offset = np.hypot(red_green.mean(), yellow_blue.mean())
    return float(spread + 0.3 * offset)


def sharpness(rgb_HW3: np.ndarray) -> float:
    """Return the variance of the Laplacian over the variance of the picture, both of its luma.

    The quotient does not change with contrast or brightness. It falls with blur, and with size:
    the same face has finer detail per pixel when it is smaller. A uniform picture gives 0.
    """
    luma = _luma(rgb_HW3)
    variance = float(luma.var())
    # Quantised to 8 bits, a picture of variance below one step's is uniform.
    if variance < 1.0:
        return 0.0
    laplacian = cv2.Laplacian(luma, cv2.CV_32F, ksize=1, borderType=cv2.BORDER_REPLICATE)
    return float(laplacian.var()) / variance


def blockiness(rgb_HW3: np.ndarray) -> float:
    """Return how much larger the steps across JPEG's 8-pixel grid are than those beside it.

    1 is a picture without blocks; strongly compressed ones reach 2 and more. Sides below 24 px
    hold too few blocks to tell: 1.
    """
    luma = _luma(rgb_HW3)
    if min(luma.shape) < 3 * _BLOCK_PX:
        return 1.0
    ratios = []
    for axis in (0, 1):
        steps = np.abs(np.diff(luma, axis=axis)).mean(axis=1 - axis)
        position = np.arange(len(steps)) % _BLOCK_PX
        across = steps[position == _BLOCK_PX - 1].mean()
        # The steps next to the grid share its surroundings; those mid-block are quantised away.
        beside = steps[(position == _BLOCK_PX - 2) | (position == 0)].mean()
        ratios.append((across + _EPSILON) / (beside + _EPSILON) if across > 0.05 else 1.0)
    return float(np.mean(ratios))


def _luma(rgb_HW3: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32)
