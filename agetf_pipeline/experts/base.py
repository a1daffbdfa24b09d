"""What every age expert gives: one protocol, one result type."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.schemas import NUM_AGE_BINS

AGE_BINS_YEARS: np.ndarray = np.arange(NUM_AGE_BINS, dtype=np.float32)
"""Ages 0..100 of the bins, float32 (101,)."""


@dataclass(frozen=True)
class Readings:
    """What one expert reads from a batch of N faces.

    Attributes:
        age_years: float32 (N,), 0 to 100; NaN where the reading failed.
        sigma_years: float32 (N,), standard deviation > 0, uncalibrated; NaN where it failed.
        distribution: float32 (N, 101), p(age) over 0..100, rows sum to 1; None for regressors.
        valid_mass: float32 (N,), probability that the answer is a number 0..100; None where the
            expert cannot answer anything else.
        reasons: Per face None, or why there is no reading.
    """

    age_years: np.ndarray
    sigma_years: np.ndarray
    distribution: np.ndarray | None
    valid_mass: np.ndarray | None
    reasons: tuple[str | None, ...]


class AgeExpert(Protocol):
    """A network that reads ages from faces."""

    @property
    def name(self) -> str:
        """Its name in tables: `janus`, `mivolo`, `resnet50`, `vgg16`."""
        ...

    @property
    def version(self) -> str:
        """Checkpoint hash and code version, `<sha256[:12]>-<code version>`."""
        ...

    @property
    def trained_on(self) -> str:
        """What the weights were trained on, as their card says: `synthetic`, `published`..."""
        ...

    def read(self, faces_NHWC: np.ndarray) -> Readings:
        """Read a batch of aligned faces, uint8 (N, H, W, 3) RGB of any square size."""
        ...


def readings_from_distribution(
    distribution: np.ndarray, valid_mass: np.ndarray | None = None
) -> Readings:
    """Return mean and standard deviation of distributions over ages, as an expert's readings.

    Args:
        distribution: float (N, 101), p(age), rows sum to 1. A row with a non-finite value is a
            failed reading.
        valid_mass: float (N,), handed on.

    Raises:
        DataError: The shape is not (N, 101).
    """
    if distribution.ndim != 2 or distribution.shape[1] != NUM_AGE_BINS:
        raise DataError(
            f"Expected distributions of shape (N, {NUM_AGE_BINS}); found {distribution.shape}."
        )
    p_NA = distribution.astype(np.float64)
    age = p_NA @ AGE_BINS_YEARS
    variance = p_NA @ (AGE_BINS_YEARS.astype(np.float64) ** 2) - age**2
    # A one-hot distribution has no spread: a bin is a year wide, so its own spread is the floor.
    sigma = np.sqrt(np.maximum(variance, 1.0 / 12.0))
    finite = np.atleast_1d(np.isfinite(p_NA).all(axis=1))
    reasons = tuple(None if good else "the network gave a non-finite value" for good in finite)
    return Readings(
        np.where(finite, age, np.nan).astype(np.float32),
        np.where(finite, sigma, np.nan).astype(np.float32),
        distribution.astype(np.float32),
        None if valid_mass is None else valid_mass.astype(np.float32),
        reasons,
    )
