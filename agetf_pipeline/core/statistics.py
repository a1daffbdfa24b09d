"""Figures with their uncertainty: identity-clustered bootstrap, suppression of small cells, ranks.

Images of one person are not independent, so whole identities are drawn, never single images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

Statistic = Callable[..., float]
"""A number from equally long columns: `statistic(column, ...)`."""


@dataclass(frozen=True)
class Measure:
    """One figure of a report.

    Attributes:
        value: The figure; None where it could not be computed, with the `reason`.
        low: Lower end of its interval; None where there is none.
        high: Upper end.
        n: Number of items (images, pairs, faces) that it rests on.
        num_identities: Number of people behind them.
        unit: `years`, `dB`, or empty.
        synthetic: Whether it was measured on synthetic faces.
        reason: Why there is no value or no interval.
        note: What a reader of the value has to know, such as which cell it is of.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    num_identities: int = 0
    unit: str = ""
    synthetic: bool = False
    reason: str | None = None
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-compatible values."""
        return asdict(self)

    def noted(self, note: str) -> "Measure":
        """Return the figure with a note."""
        return replace(self, note=note)


@dataclass(frozen=True)
class Sampling:
    """How intervals are made: resamples, level, smallest cell, seed, and the word `synthetic`."""

    num_bootstrap: int = 500
    level: float = 0.95
    min_cell: int = 30
    seed: int = 0
    synthetic: bool = False


def absent(reason: str, unit: str = "", n: int = 0, synthetic: bool = False) -> Measure:
    """Return a figure that could not be computed, with the reason."""
    return Measure(None, n=n, unit=unit, synthetic=synthetic, reason=reason)


def measure(
    statistic: Statistic,
    columns: Sequence[np.ndarray],
    identities: Sequence[str] | np.ndarray,
    sampling: Sampling,
    unit: str = "",
) -> Measure:
    """Compute a statistic with its identity-clustered bootstrap interval.

    Args:
        statistic: A number from the columns; NaN where it is not defined.
        columns: Arrays (N, ...), one row an item.
        identities: Person of each row (N,). All rows of a person are drawn together.
        sampling: Resamples, level, smallest cell and seed.
        unit: Of the value.

    Returns:
        The figure. Value and interval are None, with the reason, below `sampling.min_cell` rows or
        where the statistic is not defined; the interval alone is None with a single identity.
    """
    n = len(columns[0])
    codes = np.unique(np.asarray(identities), return_inverse=True)[1]
    num_identities = int(codes.max()) + 1 if n else 0
    if n < sampling.min_cell:
        reason = f"suppressed: n = {n} is below {sampling.min_cell}"
        return absent(reason, unit, n, sampling.synthetic)
    value = float(statistic(*columns))
    if not math.isfinite(value):
        return absent("not defined on these data", unit, n, sampling.synthetic)
    low, high = _interval(statistic, columns, codes, num_identities, sampling)
    reason = None if low is not None else "no interval: it needs two identities"
    return Measure(value, low, high, n, num_identities, unit, sampling.synthetic, reason)


def measure_mean(
    values: np.ndarray,
    identities: Sequence[str] | np.ndarray,
    sampling: Sampling,
    unit: str = "",
) -> Measure:
    """Compute a mean with its identity-clustered bootstrap interval; see `measure`."""
    return measure(_mean, [np.asarray(values, np.float64)], identities, sampling, unit)


def expanded_tail(level: float, num_clusters: float) -> float:
    """Return the tail of the percentile interval, corrected for few clusters.

    Percentile intervals are too narrow for small samples: they lack the n / (n - 1) of the
    variance and the tails of Student's t.

    Source: Hesterberg, "What Teachers Should Know About the Bootstrap" (2015), section 5.3, the
    expanded percentile interval.
    """
    from scipy.stats import norm, t

    quantile = t.ppf((1 - level) / 2, num_clusters - 1)
    return float(norm.cdf(math.sqrt(num_clusters / (num_clusters - 1)) * quantile))


def effective_clusters(sizes: np.ndarray) -> float:
    """Return how many clusters of one size say as much of a variance as these; 2 at least.

    Clusters of many images weigh more, and are fewer than they look: with 30 people of 1 to 10
    images, intervals that counted people held the mean 91 to 93 times of 100 instead of 95.

    Args:
        sizes: Number of rows of each cluster (G,); those of none do not count.

    Source: Satterthwaite's degrees of freedom where a cluster's part of the variance goes with the
    square of its size (images of one person alike), as in Carter, Schnepel & Steigerwald (2017),
    "Asymptotic behavior of a t-test robust to cluster heterogeneity".
    """
    return max(2.0, effective_number(np.asarray(sizes, np.float64) ** 2))


def _interval(
    statistic: Statistic,
    columns: Sequence[np.ndarray],
    codes: np.ndarray,
    num_clusters: int,
    sampling: Sampling,
) -> tuple[float | None, float | None]:
    if num_clusters < 2:
        return None, None
    rng = np.random.default_rng(sampling.seed)
    draws = rng.integers(num_clusters, size=(sampling.num_bootstrap, num_clusters))
    if statistic is _mean:
        resampled = _resampled_means(columns[0], codes, num_clusters, draws)
    else:
        order = np.argsort(codes, kind="stable")
        rows_of = np.split(order, np.cumsum(np.bincount(codes))[:-1])
        resampled = np.empty(sampling.num_bootstrap)
        for i, draw in enumerate(draws):
            rows = np.concatenate([rows_of[cluster] for cluster in draw])
            resampled[i] = statistic(*(column[rows] for column in columns))
    resampled = resampled[np.isfinite(resampled)]
    if not resampled.size:
        return None, None
    tail = expanded_tail(sampling.level, effective_clusters(np.bincount(codes)))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def _resampled_means(
    values: np.ndarray, codes: np.ndarray, num_clusters: int, draws: np.ndarray
) -> np.ndarray:
    """Means of whole clusters drawn with replacement, from the clusters' sums and sizes."""
    sums = np.bincount(codes, weights=values, minlength=num_clusters)
    sizes = np.bincount(codes, minlength=num_clusters)
    return sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of two columns (N,), ties averaged; NaN where constant."""
    from scipy.stats import rankdata

    if len(first) < 2:
        return math.nan
    return pearson(rankdata(first), rankdata(second))


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Return Pearson's correlation of two columns (N,); NaN where one is constant."""
    a, b = first - np.mean(first), second - np.mean(second)
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Return the least-squares slope of `y` over `x` (N,); NaN where `x` is constant."""
    centred = x - np.mean(x)
    scale = float(centred @ centred)
    return float(centred @ y) / scale if scale > 0 else math.nan


def order_violation_rate(readings_NA: np.ndarray) -> float:
    """Return the share of neighbouring anchors whose reading falls, of readings (N, A) by age."""
    return float((np.diff(readings_NA, axis=1) < 0).mean())


def threshold_at_far(impostor_scores: np.ndarray, false_accept_rate: float) -> float:
    """Return the threshold t at which `score >= t` accepts the given share of impostors.

    It is the lowest score of those that may be accepted. A fresh pair then passes with the
    probability k / (N + 1), k being the number accepted of N; just above the highest refused score
    it would be (k + 1) / (N + 1), twice the rate where a single pair may be accepted.

    Args:
        impostor_scores: Scores of different-identity pairs (N,).
        false_accept_rate: Share in (0, 1).

    Returns:
        The threshold, which accepts at most the share of these scores: of several equal ones all or
        none. NaN where N is too small for one accepted pair to be below the rate.
    """
    num_allowed = math.floor(len(impostor_scores) * false_accept_rate)
    if num_allowed < 1:
        return math.nan
    ordered = np.sort(np.asarray(impostor_scores, np.float64))[::-1]
    refused = ordered[num_allowed]
    accepted = ordered[:num_allowed][ordered[:num_allowed] > refused]
    # None where all the best tie with the first that must be refused: then all of them are.
    return float(accepted[-1]) if len(accepted) else float(np.nextafter(refused, np.inf))


def effective_number(weights: np.ndarray) -> float:
    """Return the effective sample size of weighted images, (sum w)^2 / sum w^2 (Kish 1965)."""
    squares = float((weights.astype(float) ** 2).sum())
    return float(weights.astype(float).sum() ** 2 / squares) if squares > 0 else 0.0


def emd_years(first_years: np.ndarray, second_years: np.ndarray) -> float:
    """Return the earth mover's distance in years between two samples of ages.

    Args:
        first_years: (N,), at least one.
        second_years: (M,), at least one; N and M may differ.

    Returns:
        The area between the two distribution functions, exact; NaN where one sample is empty.
    """
    first, second = (np.sort(np.asarray(ages, np.float64)) for ages in (first_years, second_years))
    if not (len(first) and len(second)):
        return math.nan
    at = np.sort(np.concatenate([first, second]))
    share_first, share_second = (
        np.searchsorted(sample, at[:-1], side="right") / len(sample) for sample in (first, second)
    )
    return float(np.abs(share_first - share_second) @ np.diff(at))


def emd_years_of_histograms(first_K: np.ndarray, second_K: np.ndarray) -> float:
    """Return the earth mover's distance in years between two histograms of whole years.

    Args:
        first_K: Counts or probabilities of the ages 0, 1, ..., K - 1, not negative; scaled to 1.
        second_K: Likewise, of the same length.

    Returns:
        The area between the two distribution functions, exact; NaN where one is empty.
    """
    first, second = (np.asarray(counts, np.float64) for counts in (first_K, second_K))
    assert first.shape == second.shape
    if not (first.sum() > 0 and second.sum() > 0):
        return math.nan
    difference = np.cumsum(first / first.sum() - second / second.sum())
    return float(np.abs(difference[:-1]).sum())
