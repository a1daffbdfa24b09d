"""The mixture as a distribution over ages 0 to 100, and over the ten age groups.

Shapes: N images, E experts, A ages 0..100, G age groups.
"""

import numpy as np

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.ages import AGE_GROUPS, group_bounds
from agetf_pipeline.data.schemas import NUM_AGE_BINS

AGES_A: np.ndarray = np.arange(NUM_AGE_BINS, dtype=np.float64)
"""The ages of the bins, years, float64 (101,). Bin a stands for a - 1/2 to a + 1/2."""

_CHUNK = 4096
"""Rows at once: the working memory stays below 20 MB for six experts."""
_EDGES = np.arange(NUM_AGE_BINS + 1, dtype=np.float64) - 0.5


def gaussian_distribution(age_N: np.ndarray, sigma_N: np.ndarray) -> np.ndarray:
    """Return Gaussians as distributions over the ages 0..100, float64 (N, A), rows sum to 1.

    p(a) is the Gaussian's mass between a - 1/2 and a + 1/2, divided by its mass between -1/2 and
    100 1/2 (truncation). A row without an age or a sigma is all NaN.

    Args:
        age_N: float (N,), means, 0 to 100 years.
        sigma_N: float (N,), years, > 0.
    """
    from scipy.special import ndtr

    sigma_N = np.where(sigma_N > 0, sigma_N, np.nan)
    below_NA = ndtr((_EDGES - age_N[:, None]) / sigma_N[:, None])
    return np.diff(below_NA, axis=1) / (below_NA[:, -1:] - below_NA[:, :1])


def mixture_distribution(
    weight_NE: np.ndarray, age_NE: np.ndarray, sigma_NE: np.ndarray, part_NE: np.ndarray
) -> np.ndarray:
    """Return the mixture's distribution over ages, float32 (N, A): sum of w_i p_i(a).

    Args:
        weight_NE: float (N, E), rows sum to 1; a row of NaN has no label, and gets no distribution.
        age_NE: float (N, E), corrected ages, years; anything where an expert takes no part.
        sigma_NE: float (N, E), calibrated sigmas, years; anything where it takes no part.
        part_NE: bool (N, E), whether an expert takes part.

    Raises:
        DataError: The shapes differ.
    """
    if not (weight_NE.shape == age_NE.shape == sigma_NE.shape == part_NE.shape):
        raise DataError(
            "Expected weights, ages, sigmas and parts of one shape (N, E); found "
            f"{weight_NE.shape}, {age_NE.shape}, {sigma_NE.shape} and {part_NE.shape}."
        )
    num_images, num_experts = weight_NE.shape
    mixed_NA = np.empty((num_images, NUM_AGE_BINS), np.float32)
    for start in range(0, num_images, _CHUNK):
        rows = slice(start, start + _CHUNK)
        weight = np.where(part_NE[rows], weight_NE[rows], 0.0)
        mixed = np.zeros((len(weight), NUM_AGE_BINS))
        for e in range(num_experts):
            taken = weight[:, e] > 0
            alone = gaussian_distribution(age_NE[rows, e][taken], sigma_NE[rows, e][taken])
            mixed[taken] += weight[taken, e, None] * alone
        mixed[~(weight.sum(axis=1) > 0)] = np.nan
        mixed_NA[rows] = mixed
    return mixed_NA


def group_probabilities(distribution_NA: np.ndarray) -> np.ndarray:
    """Return the mass of the ten age groups, float32 (N, G), rows sum to 1.

    A group begins at an exact age, for example 3.0; the bin of that age begins half a year
    earlier. Half of the bin therefore belongs to the group below, so that a narrow distribution
    has most of its mass in the group of its mean (`data.ages.group_of`).

    Args:
        distribution_NA: float (N, A), rows sum to 1.
    """
    return (distribution_NA.astype(np.float64) @ _members()).astype(np.float32)


def _members() -> np.ndarray:
    """Return the share of each age bin that lies in each group, float64 (A, G)."""
    columns = []
    for group in AGE_GROUPS:
        lower, upper = group_bounds(group)
        # The first and the last bin have no group beyond theirs.
        lower = -1.0 if group == AGE_GROUPS[0] else lower
        inside = np.minimum(AGES_A + 0.5, upper) - np.maximum(AGES_A - 0.5, lower)
        columns.append(np.clip(inside, 0.0, 1.0))
    return np.stack(columns, axis=1)


def expected_error(distribution_NA: np.ndarray, true_age_N: np.ndarray) -> np.ndarray:
    """Return the earth mover's distance of each distribution to the true age, years, (N,).

    The Wasserstein-1 distance to a point is the expected absolute error: E|a - y|. Unlike the
    absolute error of the mean it also charges for spread.

    Args:
        distribution_NA: float (N, A), rows sum to 1.
        true_age_N: float (N,), years.
    """
    distance_NA = np.abs(AGES_A - true_age_N[:, None])
    return (distribution_NA * distance_NA).sum(axis=1)
