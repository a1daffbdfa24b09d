"""Figures of age estimates against true ages, used by the mixture and by evaluation."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AgeFigures:
    """How good age estimates are. Everything is None where no estimate could be compared.

    Attributes:
        num_images: Images with a true age and an estimate.
        mae_years: Mean absolute error.
        cs5: Cumulative score, the share within 5 years, 0 to 1.
        bias_years: Mean of estimate minus truth.
        coverage: Share of truths inside the interval, 0 to 1; None without intervals.
    """

    num_images: int
    mae_years: float | None
    cs5: float | None
    bias_years: float | None
    coverage: float | None = None


def age_figures(
    true_age_years: np.ndarray,
    age_years: np.ndarray,
    interval_low_years: np.ndarray | None = None,
    interval_high_years: np.ndarray | None = None,
) -> AgeFigures:
    """Compare estimates with truths; a pair with a NaN is left out, and not counted.

    Args:
        true_age_years: float (N,), NaN where unknown.
        age_years: float (N,), NaN where there is no estimate.
        interval_low_years: float (N,), lower ends.
        interval_high_years: float (N,), upper ends (ends belong to the interval).
    """
    both = np.isfinite(true_age_years) & np.isfinite(age_years)
    if not both.any():
        return AgeFigures(0, None, None, None)
    truth, estimate = true_age_years[both].astype(float), age_years[both].astype(float)
    error = estimate - truth
    covered = None
    if interval_low_years is not None and interval_high_years is not None:
        inside = (truth >= interval_low_years[both]) & (truth <= interval_high_years[both])
        covered = float(inside.mean())
    return AgeFigures(
        int(both.sum()),
        float(np.abs(error).mean()),
        float((np.abs(error) <= 5).mean()),
        float(error.mean()),
        covered,
    )


def mae_years(true_age_years: np.ndarray, age_years: np.ndarray) -> float | None:
    """Return the mean absolute error in years, None where nothing can be compared."""
    return age_figures(true_age_years, age_years).mae_years


def cs5(true_age_years: np.ndarray, age_years: np.ndarray) -> float | None:
    """Return the share of estimates within 5 years of the truth, None where there is none."""
    return age_figures(true_age_years, age_years).cs5


def bias_years(true_age_years: np.ndarray, age_years: np.ndarray) -> float | None:
    """Return the mean of estimate minus truth in years, None where nothing can be compared."""
    return age_figures(true_age_years, age_years).bias_years


def coverage(
    true_age_years: np.ndarray, interval_low_years: np.ndarray, interval_high_years: np.ndarray
) -> float | None:
    """Return the share of true ages inside their interval, None where there is no interval."""
    middle = (interval_low_years + interval_high_years) / 2
    return age_figures(true_age_years, middle, interval_low_years, interval_high_years).coverage


def effective_number(weights: np.ndarray) -> float:
    """Return the effective sample size of weighted images, (sum w)^2 / sum w^2 (Kish 1965)."""
    squares = float((weights.astype(float) ** 2).sum())
    return float(weights.astype(float).sum() ** 2 / squares) if squares > 0 else 0.0
