"""Conformal intervals whose coverage holds in every group of true ages, not only on average.

The mixture regresses towards the mean: the youngest and the oldest are read too near the middle,
so one quantile for all leaves exactly them outside. Here a candidate age y is kept where its
score |y - age| / sigma passes the quantile of the scores of y's own age group; the interval is
the hull of the ages kept. Whatever group the true age is in, it is judged by its own group's
scores: that is where the coverage per group comes from, and it needs no true age at test time.

The hull covers more than was asked of each group. The level asked of the groups is therefore
lowered until the hull holds the promised share of all images, but not below
`lowest_group_level`.

Sources: label-conditional (Mondrian) conformal prediction, Vovk, Gammerman and Shafer,
"Algorithmic Learning in a Random World" (2005), section 4.5; nested sets, Gupta, Kuchibhotla and
Ramdas, "Nested conformal prediction and quantile out-of-bag ensemble methods" (2022), section 2.

Shapes: N images, G age groups.
"""

from dataclasses import dataclass

import numpy as np

from agetf_pipeline.data.ages import AGE_GROUPS, group_bounds

MAX_AGE_YEARS = 120.0
MIN_GROUP_SCORES = 20
"""A group with fewer scores borrows those of the nearest true ages."""
MIN_SCORES = 80
"""With fewer images in all, groups cannot be told apart: one quantile for all."""

_LEVEL_STEPS = 40
_GROUP_BOUNDS = np.array(
    [
        (low, MAX_AGE_YEARS if group == AGE_GROUPS[-1] else high)
        for group, (low, high) in ((group, group_bounds(group)) for group in AGE_GROUPS)
    ]
)


@dataclass(frozen=True)
class Scored:
    """Images with a known age, read by calibrations that had not seen their identity.

    Attributes:
        true_age_N: float (N,), years.
        age_N: float (N,), years.
        sigma_N: float (N,), years, > 0.
        fold_N: int (N,), which images were held out together.
    """

    true_age_N: np.ndarray
    age_N: np.ndarray
    sigma_N: np.ndarray
    fold_N: np.ndarray

    def scores(self) -> np.ndarray:
        """|true age - age| / sigma, float64 (N,)."""
        return np.abs(self.true_age_N - self.age_N) / self.sigma_N

    def take(self, chosen_N: np.ndarray) -> "Scored":
        """Return the images that a mask (bool) chooses."""
        return Scored(
            self.true_age_N[chosen_N],
            self.age_N[chosen_N],
            self.sigma_N[chosen_N],
            self.fold_N[chosen_N],
        )


def conformal_quantile(score_N: np.ndarray, level: float) -> float | None:
    """Return the ceil((n+1) level)-th smallest score; None where n is too small for the level.

    Source: split conformal prediction, Lei et al. 2018, section 2.2.
    """
    scores = np.sort(score_N[np.isfinite(score_N)])
    rank = _rank(len(scores), level)
    return round(float(scores[rank - 1]), 9) if 1 <= rank <= len(scores) else None


def lowest_group_level(level: float) -> float:
    """Return the least coverage that any group is asked for: half as many more may be missed."""
    return 1.0 - 1.5 * (1.0 - level) if level > 1 / 3 else 0.0


def group_interval(
    age_N: np.ndarray, sigma_N: np.ndarray, quantile_G: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hull of the ages y with |y - age| <= q sigma, q being that of y's age group.

    Args:
        age_N: float (N,), years.
        sigma_N: float (N,), years.
        quantile_G: float (G,), the groups' quantiles of |true age - age| / sigma.

    Returns:
        Lower and upper ends, float64 (N,), years, within 0 to 120. The mixture's age itself
        always belongs to the interval.
    """
    reach_NG = sigma_N[:, None] * quantile_G
    low_NG = np.maximum(age_N[:, None] - reach_NG, _GROUP_BOUNDS[:, 0])
    high_NG = np.minimum(age_N[:, None] + reach_NG, _GROUP_BOUNDS[:, 1])
    kept_NG = low_NG < high_NG
    low_N = np.where(kept_NG, low_NG, np.inf).min(axis=1)
    high_N = np.where(kept_NG, high_NG, -np.inf).max(axis=1)
    unknown_N = ~(np.isfinite(age_N) & np.isfinite(sigma_N))
    low_N, high_N = np.minimum(low_N, age_N), np.maximum(high_N, age_N)
    return np.where(unknown_N, np.nan, low_N), np.where(unknown_N, np.nan, high_N)


def fit_group_quantiles(scored: Scored, level: float) -> tuple[float, np.ndarray] | None:
    """Fit the groups' quantiles, at the lowest level at which the hull covers `level` of all.

    Each image is judged by quantiles of the other folds. The level is then a conformal quantile
    of its own: the rank ceil((n+1) level) of the smallest level at which an image's true age is
    inside (on a grid). The sets are nested in it, which is all that conformal prediction needs.

    Args:
        scored: Images with a known age; those without a label are left out.
        level: Share of true ages that the intervals shall hold, 0 to 1.

    Returns:
        The level asked of each group, and the groups' quantiles, float64 (G,). None where there
        are too few images to tell groups apart.
    """
    scored = scored.take(np.isfinite(scored.scores()))
    num_images, folds = len(scored.true_age_N), np.unique(scored.fold_N)
    if num_images < MIN_SCORES or len(folds) < 2:
        return None
    tables = [_sorted_by_group(scored.take(scored.fold_N != fold)) for fold in folds]

    def num_inside(group_level: float) -> int:
        total = 0
        for fold, table in zip(folds, tables, strict=True):
            held = scored.take(scored.fold_N == fold)
            low_N, high_N = group_interval(held.age_N, held.sigma_N, _at_level(table, group_level))
            total += int(((held.true_age_N >= low_N) & (held.true_age_N <= high_N)).sum())
        return total

    # Up to the middle between the level and 1: scores of other folds may be a little too small.
    grid = np.linspace(lowest_group_level(level), (1 + level) / 2, _LEVEL_STEPS + 1)
    needed = _rank(num_images, level)
    first, last = 0, _LEVEL_STEPS
    while first < last:  # the number inside rises with the level
        middle = (first + last) // 2
        first, last = (first, middle) if num_inside(grid[middle]) >= needed else (middle + 1, last)
    chosen = float(grid[first])
    return chosen, _at_level(_sorted_by_group(scored), chosen)


def _sorted_by_group(scored: Scored) -> list[np.ndarray]:
    """Return each group's scores, rising; a small group's with those of the nearest true ages."""
    score_N, truth_N = scored.scores(), scored.true_age_N
    tables = []
    for low, high in _GROUP_BOUNDS:
        # Ages at the upper bound already belong to the next group.
        away_N = np.maximum(low - truth_N, np.where(truth_N >= high, truth_N - high + 1e-6, 0.0))
        away_N = np.maximum(away_N, 0.0)
        limit = np.sort(away_N)[min(MIN_GROUP_SCORES, len(away_N)) - 1]
        tables.append(np.sort(score_N[away_N <= limit]))
    return tables


def _at_level(tables: list[np.ndarray], level: float) -> np.ndarray:
    """Return the groups' quantiles, (G,): the largest score where there are too few for one."""
    return np.array([table[min(_rank(len(table), level), len(table)) - 1] for table in tables])


def _rank(num_scores: int, level: float) -> int:
    # The tiny number keeps 0.9 * 10 = 9.000000000000002 from rounding up to 10.
    return max(1, int(np.ceil((num_scores + 1) * level - 1e-9)))
