"""Degrading training faces at random, so that the experts read old photographs too.

Shapes: N images, C channels, H height, W width. Pixels are float RGB from 0 to 255.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Augmentation:
    """How far faces are changed. Fractions are of the image's side or of the full value range.

    The defaults are mild: a short training that is shown twice as much change was far from fitting
    even the faces it saw.
    """

    max_shift: float = 0.025
    max_zoom: float = 0.03
    max_turn_rad: float = 0.03
    max_brightness: float = 0.06
    max_contrast: float = 0.1
    max_saturation: float = 0.2
    p_grey: float = 0.08
    p_low_res: float = 0.08
    p_blur: float = 0.05
    max_noise: float = 0.01


def augment(x_NCHW: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Return changed copies of faces, a function of the input and the generator's state alone.

    Args:
        x_NCHW: float (N, 3, H, W), 0 to 255.
        how: Strengths.
        generator: A CPU generator.

    Returns:
        float (N, 3, H, W), 0 to 255.
    """

    def uniform(low: float, high: float) -> Tensor:
        values = torch.rand(len(x_NCHW), generator=generator) * (high - low) + low
        return values.to(x_NCHW.device)

    def chosen(probability: float) -> Tensor:
        return uniform(0, 1) < probability

    x_NCHW = _move(x_NCHW, how, uniform)
    factor = 1 / 3 + float(torch.rand(1, generator=generator)) / 3
    low_res_N, blurred_N = chosen(how.p_low_res), chosen(how.p_blur)
    x_NCHW[low_res_N] = _low_res(x_NCHW[low_res_N], factor)
    x_NCHW[blurred_N] = _blur(x_NCHW[blurred_N])
    grey_N1HW = sum(w * x_NCHW[:, i : i + 1] for i, w in enumerate(_GREY_WEIGHTS))
    assert isinstance(grey_N1HW, Tensor)
    saturation = uniform(1 - how.max_saturation, 1 + how.max_saturation)[:, None, None, None]
    saturation = saturation.masked_fill(chosen(how.p_grey)[:, None, None, None], 0)
    x_NCHW = grey_N1HW + (x_NCHW - grey_N1HW) * saturation
    contrast = uniform(1 - how.max_contrast, 1 + how.max_contrast)[:, None, None, None]
    brightness = uniform(-255 * how.max_brightness, 255 * how.max_brightness)[:, None, None, None]
    x_NCHW = (x_NCHW - 127.5) * contrast + 127.5 + brightness
    noise = torch.randn(x_NCHW.shape, generator=generator).to(x_NCHW.device)
    x_NCHW = x_NCHW + noise * 255 * uniform(0, how.max_noise)[:, None, None, None]
    return x_NCHW.clamp(0, 255)


def _move(x_NCHW: Tensor, how: Augmentation, uniform) -> Tensor:
    """Mirror, shift, zoom and turn in one resampling; what comes in from outside repeats the rim.

    `uniform(low, high)` draws a number per image.
    """
    turn = uniform(-how.max_turn_rad, how.max_turn_rad)
    zoom = uniform(1 - how.max_zoom, 1 + how.max_zoom)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    shift_x, shift_y = (uniform(-2 * how.max_shift, 2 * how.max_shift) for _ in range(2))
    cosine, sine = turn.cos() * zoom, turn.sin() * zoom
    theta = torch.stack(
        [
            torch.stack([mirror * cosine, -sine, shift_x], 1),
            torch.stack([mirror * sine, cosine, shift_y], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(x_NCHW.shape), align_corners=False)
    return F.grid_sample(x_NCHW, grid, padding_mode="border", align_corners=False)


def _low_res(x_NCHW: Tensor, factor: float) -> Tensor:
    """Shrink by a factor below 1 and enlarge again."""
    if not len(x_NCHW):
        return x_NCHW
    size = (max(8, round(x_NCHW.shape[2] * factor)),) * 2
    small = F.interpolate(x_NCHW, size=size, mode="bilinear", antialias=True)
    return F.interpolate(small, size=x_NCHW.shape[2:], mode="bicubic").clamp(0, 255)


def _blur(x_NCHW: Tensor) -> Tensor:
    """Two box filters of 3 pixels: close to a Gaussian of 1.15 pixels."""
    for _ in range(2 if len(x_NCHW) else 0):
        x_NCHW = F.avg_pool2d(F.pad(x_NCHW, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return x_NCHW
