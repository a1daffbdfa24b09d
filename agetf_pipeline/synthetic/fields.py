"""Fields on a pixel grid: coordinates, signed distances, soft edges, noise, blending.

Shapes: S the picture's side. Planes are float32 (S, S); colours are linear light, float32
(3, S, S), so that a sum of lights is a sum of numbers.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

Field = np.ndarray
Colour = Sequence[float]


@lru_cache(maxsize=8)
def grid(size_px: int) -> tuple[Field, Field]:
    """Return x (rightwards) and y (downwards) of the pixel centres, -1 to 1, (S, S) each."""
    axis = ((np.arange(size_px, dtype=np.float32) + 0.5) * (2.0 / size_px) - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


@lru_cache(maxsize=8)
def grain(size_px: int) -> Field:
    """Return fixed noise, mean 0; standard deviation 1 at 256 px, averaged to less below."""
    rng = np.random.default_rng(20_011)
    full = rng.standard_normal((256, 256)).astype(np.float32)
    if 256 % size_px == 0:
        k = 256 // size_px
        plane = full.reshape(size_px, k, size_px, k).mean(axis=(1, 3))
    else:
        plane = full[:size_px, :size_px] * np.float32(size_px / 256)
    plane.setflags(write=False)
    return plane


@lru_cache(maxsize=8)
def clouds(size_px: int) -> Field:
    """Return fixed smooth noise of several scales, about -1 to 1, tiling at the borders."""
    rng = np.random.default_rng(30_029)
    x, y = grid(size_px)
    total = np.zeros_like(x)
    for _ in range(40):
        fx, fy = rng.integers(-6, 7, 2)
        scale = 1.0 / (1.0 + 0.5 * (fx * fx + fy * fy))
        total += scale * np.sin(np.pi * (fx * x + fy * y) + rng.uniform(0, 2 * np.pi))
    total = (total / np.abs(total).max()).astype(np.float32)
    total.setflags(write=False)
    return total


@lru_cache(maxsize=64)
def strands(seed: int) -> Field:
    """Return a smooth random signal of 2048 samples, -1 to 1, for hair; read it with `sample`."""
    rng = np.random.default_rng([11, seed])
    coarse = np.interp(np.arange(2048) / 16, np.arange(129), rng.uniform(-1, 1, 129))
    fine = np.interp(np.arange(2048) / 5, np.arange(411), rng.uniform(-1, 1, 411))
    return (0.6 * coarse + 0.4 * fine).astype(np.float32)


def sample(table: Field, position: Field) -> Field:
    """Read a `strands` table at positions (any real; 16 samples a unit), wrapping round."""
    index = np.floor(position * np.float32(16)).astype(np.int32) & 2047
    return table[index]


def edge(distance: Field, width: float) -> Field:
    """Return coverage, 1 inside (distance < 0) to 0 outside, over an edge `width` wide."""
    t = distance * np.float32(-1.0 / width)
    t += np.float32(0.5)
    t = np.minimum(np.maximum(t, 0), 1)
    return t * t * (3 - 2 * t)


def step(value: Field, low: float, high: float) -> Field:
    """Return a smooth rise from 0 where `value` <= low to 1 where it is >= high."""
    t = (value - np.float32(low)) * np.float32(1.0 / (high - low))
    t = np.minimum(np.maximum(t, 0), 1)
    return t * t * (3 - 2 * t)


def groove(distance: Field, width: float, px: float) -> Field:
    """Return a soft line along distance 0; thinner than a pixel it fades instead of breaking up."""
    drawn = max(width, 0.75 * px)
    t = distance * np.float32(1.0 / drawn)
    return np.exp(-(t * t)) * np.float32(width / drawn)


def bump(dx: Field, dy: Field | np.floating, rx: float, ry: float) -> Field:
    """Return a Gaussian hill, 1 in its middle, of radii rx and ry, at offsets dx and dy."""
    a = dx * np.float32(1.0 / rx)
    b = dy * np.float32(1.0 / ry)
    return np.exp(-(a * a + b * b))


def ellipse(dx: Field, dy: Field, rx: float, ry: float, squareness: float = 0.0) -> Field:
    """Return the approximate signed distance to an ellipse, squared off as `squareness` says."""
    a = dx * np.float32(1.0 / rx)
    b = dy * np.float32(1.0 / ry)
    a *= a
    b *= b
    round_ = np.sqrt(a + b)
    if squareness > 0:
        boxy = np.sqrt(np.sqrt(a * a + b * b))
        round_ = round_ + (boxy - round_) * np.float32(squareness)
    # Scaled by the smaller radius: exact along that axis, conservative along the other.
    return (round_ - 1) * np.float32(min(rx, ry))


def smooth_union(a: Field, b: Field, k: float) -> Field:
    """Return the union of two distances, its crease filled over a width `k`."""
    h = np.clip(0.5 + (b - a) * np.float32(0.5 / k), 0, 1)
    return b + (a - b) * h - np.float32(k) * h * (1 - h)


def linear(colour: Colour) -> np.ndarray:
    """Return an sRGB colour (0 to 1) as linear light, float32 (3, 1, 1); gamma 2, like `encode`."""
    return (np.asarray(colour, np.float32) ** 2).reshape(3, 1, 1)


def encode(rgb: Field) -> np.ndarray:
    """Return linear light (3, S, S) as picture values, uint8 (S, S, 3)."""
    out = np.sqrt(np.clip(rgb, 0, 1)) * np.float32(255)
    out += np.float32(0.5)
    return np.ascontiguousarray(out.astype(np.uint8).transpose(1, 2, 0))


def lay(rgb: Field, colour: Field | np.floating, cover: Field) -> None:
    """Lay a colour (3, 1, 1) or colour plane (3, S, S) over `rgb` in place, as `cover` says."""
    rgb += (colour - rgb) * cover


def mix(a: Field | np.floating, b: np.ndarray, t: float | Field) -> np.ndarray:
    """Return the blend of two colours."""
    return a + (b - a) * t
