"""Weights and pictures that need no file: drawn by name, the same on every machine.

Only the raw 64-bit numbers of PCG64 are used. Their stream is fixed for a seed, which numpy does
not promise for its normal and integer draws.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np


def raw_uint64(name: str, count: int) -> np.ndarray:
    """Return `count` raw numbers, uint64 (count,), seeded by the sha256 of a name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")
    return np.asarray(np.random.PCG64(seed).random_raw(count), np.uint64)


def unit_noise(name: str, shape: Sequence[int]) -> np.ndarray:
    """Return numbers of mean 0 and variance 1, uniform, float64 of a shape."""
    uniform = (raw_uint64(name, math.prod(shape)) >> np.uint64(11)) * 2.0**-53
    return ((2 * uniform - 1) * math.sqrt(3)).reshape(shape)


def seeded_state(
    shapes: Mapping[str, Sequence[int]], gains: Mapping[str, float] | None = None
) -> dict[str, np.ndarray]:
    """Return a state dict for a network, drawn from the names of its tensors.

    Matrices and kernels have variance 1 / fan-in; the gains of normalisations lie near 1, biases
    and running means near 0, running variances near 1; counters are 0.

    Args:
        shapes: Name to shape of every tensor.
        gains: Name to a further factor, by which chosen tensors are scaled.

    Returns:
        float32 arrays, int64 for counters.
    """
    state: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = np.zeros(shape, np.int64)
            continue
        value = _scaled(name, unit_noise(name, shape)) * (gains or {}).get(name, 1.0)
        state[name] = value.astype(np.float32)
    return state


def _scaled(name: str, noise: np.ndarray) -> np.ndarray:
    last = name.rsplit(".", 1)[-1]
    if last == "running_var":
        return np.exp(0.2 * noise)
    if last in ("bias", "running_mean"):
        return 0.1 * noise
    if last == "weight" and (noise.ndim == 1 or "norm" in name):
        return 1 + 0.2 * noise
    if last == "weight":
        return noise / math.sqrt(math.prod(noise.shape[1:]))
    return 0.3 * noise  # positions and tokens


def seeded_picture(name: str, height: int, width: int) -> np.ndarray:
    """Return a picture with patches and grain, uint8 (height, width, 3).

    Patches give it structure that survives resizing; a brightness of its own and the grain let
    two pictures differ in the large and in the small.
    """
    patch = 16
    rows, columns = -(-height // patch), -(-width // patch)
    shade = raw_uint64(f"{name}/shade", 3) % np.uint64(128)
    coarse = raw_uint64(f"{name}/patches", rows * columns * 3) % np.uint64(96)
    coarse = coarse.reshape(rows, columns, 3).repeat(patch, 0).repeat(patch, 1)
    grain = raw_uint64(f"{name}/grain", height * width * 3) % np.uint64(33)
    picture = coarse[:height, :width] + grain.reshape(height, width, 3) + shade
    return picture.astype(np.uint8)
