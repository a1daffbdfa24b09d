"""How good the experts and their mixture are, and how well each knows it.

Every figure is a `Measure`: value, identity-clustered bootstrap interval, n, and the reason where
there is none; cells below `Sampling.min_cell` images are null. Definitions, per image with true
age y, estimate age, and predicted distribution p over ages:

    mae_years    |age - y|
    cs5          1 where |age - y| <= 5
    bias_years   age - y
    emd_years    E_p|a - y|, the Wasserstein-1 distance between p and the true age
    nll          -log of the predicted density at y, in nats
    sigma_years  the sigma that is claimed (sharpness)

An expert's p is a Gaussian; the mixture's is the weighted sum of the calibrated experts' ones.

Shapes: N images, E experts, L levels.
"""

from dataclasses import dataclass

import numpy as np

from agetf_pipeline.core.statistics import Measure, Sampling, absent, measure, measure_mean, pearson
from agetf_pipeline.data.ages import AGE_GROUPS, group_bounds
from agetf_pipeline.moe.distributions import (
    expected_error,
    gaussian_distribution,
    mixture_distribution,
)
from agetf_pipeline.moe.fitting import CalibrationData, CrossFitted, crossfitted_interval

MIXTURE = "mixture"
LEVELS: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Levels of the reliability diagram."""

_UNITS = {
    "mae_years": "years", "cs5": "", "bias_years": "years", "emd_years": "years", "nll": "nats",
    "sigma_years": "years",
}  # fmt: skip
METRICS: tuple[str, ...] = tuple(_UNITS)


@dataclass(frozen=True)
class Estimate:
    """What one reader (an expert, or the mixture) says of N images; NaN where it says nothing.

    Attributes:
        reader: The expert's name, or `mixture`.
        kind: `raw` (as the expert gave it), `corrected` (out of fold) or `mixture`.
        age_N: float (N,), years.
        sigma_N: float (N,), years.
        emd_N: float (N,), expected absolute error under its distribution, years.
        nll_N: float (N,), nats.
        central_N: float (N,), level of the narrowest central interval of its distribution that
            holds the true age, |2 F(y) - 1|, 0 to 1.
    """

    reader: str
    kind: str
    age_N: np.ndarray
    sigma_N: np.ndarray
    emd_N: np.ndarray
    nll_N: np.ndarray
    central_N: np.ndarray


@dataclass(frozen=True)
class Reliability:
    """Promised against real coverage of one kind of intervals; an entry per level.

    Attributes:
        reader: Whose intervals: `conformal`, `mixture`, or an expert's name.
        levels_L: float (L,), promised.
        coverage_L: float (L,), share of true ages inside; NaN where it could not be computed.
        n: Images.
    """

    reader: str
    levels_L: np.ndarray
    coverage_L: np.ndarray
    n: int


def gaussian_estimate(
    reader: str, kind: str, age_N: np.ndarray, sigma_N: np.ndarray, true_age_N: np.ndarray
) -> Estimate:
    """Return an expert's estimate with its Gaussian's figures, per image."""
    from scipy.special import ndtr

    known = np.isfinite(age_N) & np.isfinite(sigma_N) & (sigma_N > 0)
    age_N, sigma_N = np.where(known, age_N, np.nan), np.where(known, sigma_N, np.nan)
    z_N = (true_age_N - age_N) / sigma_N
    nll_N = 0.5 * z_N**2 + np.log(sigma_N) + 0.5 * np.log(2 * np.pi)
    emd_N = expected_error(gaussian_distribution(age_N, sigma_N), true_age_N)
    return Estimate(reader, kind, age_N, sigma_N, emd_N, nll_N, np.abs(2 * ndtr(z_N) - 1))


def mixture_estimate(read: CrossFitted) -> Estimate:
    """Return the mixture's estimate with its distribution's figures, per image."""
    from scipy.special import logsumexp, ndtr

    part_NE = np.isfinite(read.expert_age_NE) & (read.weight_NE > 0)
    weight_NE = np.where(part_NE, read.weight_NE, 0.0)
    age_NE = np.where(part_NE, read.expert_age_NE, 0.0)
    sigma_NE = np.where(part_NE, read.expert_sigma_NE, 1.0)
    z_NE = (read.true_age_N[:, None] - age_NE) / sigma_NE
    log_density_NE = -0.5 * z_NE**2 - np.log(sigma_NE) - 0.5 * np.log(2 * np.pi)
    labelled = np.isfinite(read.age_N)
    nll_N = np.full(len(labelled), np.nan)
    nll_N[labelled] = -logsumexp(log_density_NE[labelled], axis=1, b=weight_NE[labelled])
    below_N = np.where(labelled, (weight_NE * ndtr(z_NE)).sum(axis=1), np.nan)
    distribution_NA = mixture_distribution(
        read.weight_NE, read.expert_age_NE, read.expert_sigma_NE, part_NE
    )
    return Estimate(
        MIXTURE, MIXTURE, read.age_N, read.sigma_N,
        expected_error(distribution_NA, read.true_age_N), nll_N, np.abs(2 * below_N - 1),
    )  # fmt: skip


def estimates_of(data: CalibrationData, read: CrossFitted) -> list[Estimate]:
    """Return every expert's estimate, raw and corrected, and the mixture's."""
    truth_N = data.true_age_N
    found = []
    for e, name in enumerate(data.names):
        answered = data.ok_NE[:, e]
        raw_N = np.where(answered, data.age_NE[:, e].astype(np.float64), np.nan)
        found.append(gaussian_estimate(name, "raw", raw_N, data.sigma_NE[:, e], truth_N))
        found.append(
            gaussian_estimate(
                name, "corrected", read.expert_age_NE[:, e], read.expert_sigma_NE[:, e], truth_N
            )
        )
    return [*found, mixture_estimate(read)]


def groups_of(true_age_N: np.ndarray) -> np.ndarray:
    """Return the age group of every true age, str (N,)."""
    lower = [group_bounds(group)[0] for group in AGE_GROUPS]
    return np.array(AGE_GROUPS)[np.searchsorted(lower, true_age_N, side="right") - 1]


def measure_estimate(
    estimate: Estimate, true_age_N: np.ndarray, identity_N: np.ndarray, sampling: Sampling
) -> dict[tuple[str, str], Measure]:
    """Measure one reader by metric and age group; `all` has every metric, groups have the bias.

    Returns:
        Measures by (metric, age group).
    """
    error_N = estimate.age_N - true_age_N
    values = {
        "mae_years": np.abs(error_N),
        "cs5": np.where(np.isfinite(error_N), np.abs(error_N) <= 5.0, np.nan),
        "bias_years": error_N,
        "emd_years": estimate.emd_N,
        "nll": estimate.nll_N,
        "sigma_years": estimate.sigma_N,
    }
    measures = {
        (name, "all"): mean_of_known(value_N, identity_N, sampling, _UNITS[name])
        for name, value_N in values.items()
    }
    for name in ("bias_years", "mae_years"):
        measures |= by_group(name, values[name], true_age_N, identity_N, sampling, "years")
    return measures


def measure_intervals(
    read: CrossFitted, identity_N: np.ndarray, sampling: Sampling
) -> dict[tuple[str, str], Measure]:
    """Measure coverage and mean width of the mixture's intervals, over all and per true age group.

    Returns:
        Measures by (`coverage` or `width_years`, age group or `all`).
    """
    inside_N = (read.true_age_N >= read.low_N) & (read.true_age_N <= read.high_N)
    columns = {
        "coverage": (np.where(np.isfinite(read.low_N), inside_N, np.nan), ""),
        "width_years": (read.high_N - read.low_N, "years"),
    }
    measures: dict[tuple[str, str], Measure] = {}
    for name, (value_N, unit) in columns.items():
        measures[name, "all"] = mean_of_known(value_N, identity_N, sampling, unit)
        measures |= by_group(name, value_N, read.true_age_N, identity_N, sampling, unit)
    return measures


def by_group(
    name: str,
    value_N: np.ndarray,
    true_age_N: np.ndarray,
    identity_N: np.ndarray,
    sampling: Sampling,
    unit: str,
) -> dict[tuple[str, str], Measure]:
    """Return the mean of a column per true age group, by (name, group)."""
    group_N = groups_of(true_age_N)
    return {
        (name, group): mean_of_known(
            value_N[group_N == group], identity_N[group_N == group], sampling, unit
        )
        for group in AGE_GROUPS
    }


def reliabilities(read: CrossFitted, estimates: list[Estimate]) -> list[Reliability]:
    """Return promised against real coverage of every kind of interval.

    `conformal`: intervals made anew at each level by the other folds' quantiles (left out where the
    images are one fold). `mixture` and the experts: central intervals of their distributions.
    """
    levels_L = np.array(LEVELS)
    found = []
    labelled = np.isfinite(read.age_N)
    if len(np.unique(read.fold_N)) > 1 and labelled.any():
        coverage = []
        for level in LEVELS:
            low_N, high_N = crossfitted_interval(read, level)
            inside_N = (read.true_age_N >= low_N) & (read.true_age_N <= high_N)
            coverage.append(inside_N[labelled].mean())
        found.append(Reliability("conformal", levels_L, np.array(coverage), int(labelled.sum())))
    for estimate in estimates:
        if estimate.kind == "raw":
            continue
        central_N = estimate.central_N[np.isfinite(estimate.central_N)]
        coverage_L = np.full(len(LEVELS), np.nan)
        if len(central_N):
            coverage_L = (central_N[:, None] <= levels_L).mean(axis=0)
        found.append(Reliability(estimate.reader, levels_L, coverage_L, len(central_N)))
    return found


def calibration_error(reliability: Reliability, sampling: Sampling) -> Measure:
    """Return the mean distance of real from promised coverage over the levels, 0 to 1."""
    distance = np.abs(reliability.coverage_L - reliability.levels_L)
    if reliability.n < sampling.min_cell:
        reason = f"suppressed: n = {reliability.n} is below {sampling.min_cell}"
        return absent(reason, n=reliability.n, synthetic=sampling.synthetic)
    return Measure(
        float(distance.mean()), n=reliability.n, synthetic=sampling.synthetic,
        reason="no interval: a mean of distances is never below 0",
    )  # fmt: skip


def error_correlations(
    read: CrossFitted, names: list[str], identity_N: np.ndarray, sampling: Sampling
) -> dict[tuple[str, str], Measure]:
    """Return the correlation of every two experts' errors on the images that both answered.

    Returns:
        Pearson's correlation of the corrected experts' errors by pair of names, each pair once,
        in the order of `names`.
    """
    error_NE = read.expert_age_NE - read.true_age_N[:, None]
    found = {}
    for i, first in enumerate(names):
        for j, second in enumerate(names[i + 1 :], start=i + 1):
            both = np.isfinite(error_NE[:, i]) & np.isfinite(error_NE[:, j])
            columns = [error_NE[both, i], error_NE[both, j]]
            found[first, second] = measure(pearson, columns, identity_N[both], sampling)
    return found


def mean_weights(
    read: CrossFitted, names: list[str], identity_N: np.ndarray, sampling: Sampling
) -> dict[tuple[str, str], Measure]:
    """Return each expert's mean weight over labelled images, by (name, age group or `all`).

    An image that an expert left out counts with weight 0.
    """
    found: dict[tuple[str, str], Measure] = {}
    for e, name in enumerate(names):
        weight_N = read.weight_NE[:, e]
        found[name, "all"] = mean_of_known(weight_N, identity_N, sampling, "")
        found |= by_group(name, weight_N, read.true_age_N, identity_N, sampling, "")
    return found


def mean_of_known(
    value_N: np.ndarray, identity_N: np.ndarray, sampling: Sampling, unit: str
) -> Measure:
    """Measure the mean of what is known: a NaN is an image without an answer."""
    known = np.isfinite(value_N)
    return measure_mean(value_N[known], identity_N[known], sampling, unit)
