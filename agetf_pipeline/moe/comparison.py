"""The mixture against simpler ways to make one age of several: is the gate worth having?

Gains are paired: on the same images, the other's absolute error minus the mixture's, so that a
positive gain speaks for the mixture. A comparison that the mixture loses is reported just the same.

Shapes: N images, E experts.
"""

from dataclasses import dataclass, replace

import numpy as np

from agetf_pipeline.core.statistics import Measure, Sampling, measure
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.moe.fitting import CrossFitted
from agetf_pipeline.moe.metrics import by_group, groups_of, mean_of_known

EQUAL_MEAN, MEDIAN, STACKING, BEST_EXPERT = "equal_mean", "median", "stacking", "best_expert"
SHRINKAGE = 0.1
"""Of the error covariances towards none: with few images they are mostly chance."""
_MIN_PAIRS = 20


@dataclass(frozen=True)
class Comparison:
    """The mixture against one other estimate, on the images that both have an age for.

    Attributes:
        name: `equal_mean`, `median`, `stacking`, `best_expert`, or an expert's name.
        about: What it is, in words.
        expert: Who the best expert is; None for the others.
        other_mae: Of the other, on these images, years.
        mixture_mae: Of the mixture, on the same images, years.
        gain: Mean paired difference of absolute errors, years; above 0 the mixture is better.
        worst_group_gain: The other's MAE in its worst age group minus the mixture's in its own
            worst; above 0 the mixture's worst group is better off.
        group_gains: The gain within each true age group.
    """

    name: str
    about: str
    other_mae: Measure
    mixture_mae: Measure
    gain: Measure
    worst_group_gain: Measure
    group_gains: dict[str, Measure]
    expert: str | None = None


def verdict(gain: Measure) -> str:
    """Return `better`, `worse` or `no difference shown` by a gain's interval, or `not known`."""
    if gain.value is None or gain.low is None or gain.high is None:
        return "not known"
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "no difference shown"


def compare_all(
    read: CrossFitted,
    names: list[str],
    identity_N: np.ndarray,
    sampling: Sampling,
    covariance_EE: np.ndarray | None = None,
) -> list[Comparison]:
    """Compare the mixture with mean, median, stacking, the best expert, and every expert.

    All of them take the bias-corrected experts. The best expert is the one over which the mixture
    gains least on the images that this expert answered: it is chosen on the very images that it is
    then compared on, which favours the expert.

    Args:
        read: Images that the calibration had not seen.
        names: The E experts.
        identity_N: str (N,), who is in the picture.
        sampling: Of the intervals.
        covariance_EE: Of the experts' errors, from other identities. None: from the other folds.
    """
    stacked_N = (
        crossfitted_stack(read)
        if covariance_EE is None
        else stack(read.expert_age_NE, covariance_EE)
    )
    part_NE = np.isfinite(read.expert_age_NE)
    some = part_NE.any(axis=1)
    mean_N, median_N = np.full(len(part_NE), np.nan), np.full(len(part_NE), np.nan)
    mean_N[some] = np.nanmean(read.expert_age_NE[some], axis=1)
    median_N[some] = np.nanmedian(read.expert_age_NE[some], axis=1)

    def compared(name: str, about: str, age_N: np.ndarray) -> Comparison:
        return compare(name, about, age_N, read, identity_N, sampling)

    alone = [
        compared(name, f"{name} alone, bias-corrected, where it answered", read.expert_age_NE[:, e])
        for e, name in enumerate(names)
        if part_NE[:, e].any()
    ]
    found = [
        compared(EQUAL_MEAN, "mean of the corrected experts", mean_N),
        compared(MEDIAN, "median of the corrected experts", median_N),
        compared(STACKING, "weights from the inverse error covariance, out of fold", stacked_N),
    ]
    known = [comparison for comparison in alone if comparison.gain.value is not None]
    if known:
        best = min(known, key=lambda comparison: comparison.gain.value or 0.0)
        about = (
            f"{best.name}, the strongest single expert (bias-corrected, where it answered), chosen "
            "on these images, which favours it"
        )
        found.append(replace(best, name=BEST_EXPERT, about=about, expert=best.name))
    return [*found, *alone]


def compare(
    name: str,
    about: str,
    other_N: np.ndarray,
    read: CrossFitted,
    identity_N: np.ndarray,
    sampling: Sampling,
) -> Comparison:
    """Compare the mixture with one other estimate.

    Args:
        name: Of the other.
        about: What it is.
        other_N: float (N,), its ages in years; NaN where it has none.
        read: The mixture's reading of the same images.
        identity_N: str (N,).
        sampling: Of the intervals.
    """
    other_N = np.abs(other_N - read.true_age_N)
    mixture_N = np.abs(read.age_N - read.true_age_N)
    both = np.isfinite(other_N) & np.isfinite(mixture_N)
    other_N, mixture_N, people_N = other_N[both], mixture_N[both], identity_N[both]
    truth_N = read.true_age_N[both]
    gains = by_group("gain", other_N - mixture_N, truth_N, people_N, sampling, "years")
    return Comparison(
        name=name,
        about=about,
        other_mae=mean_of_known(other_N, people_N, sampling, "years"),
        mixture_mae=mean_of_known(mixture_N, people_N, sampling, "years"),
        gain=mean_of_known(other_N - mixture_N, people_N, sampling, "years"),
        worst_group_gain=_worst_group_gain(other_N, mixture_N, truth_N, people_N, sampling),
        group_gains={group: item for (_, group), item in gains.items()},
    )


def error_covariance(read: CrossFitted) -> np.ndarray:
    """Return the second moments of the corrected experts' errors, shrunk, float64 (E, E), years^2.

    Each from the images that both experts answered; off the diagonal shrunk by a tenth, and 0 where
    there are hardly any such images. NaN on the diagonal of an expert without any.

    Source: Bates and Granger, "The combination of forecasts" (1969), for errors of mean 0.
    """
    error_NE = read.expert_age_NE - read.true_age_N[:, None]
    known_NE = np.isfinite(error_NE)
    filled_NE = np.where(known_NE, error_NE, 0.0)
    num_EE = known_NE.T.astype(float) @ known_NE
    with np.errstate(invalid="ignore", divide="ignore"):
        moment_EE = filled_NE.T @ filled_NE / num_EE
    off = np.where(num_EE >= _MIN_PAIRS, (1.0 - SHRINKAGE) * moment_EE, 0.0)
    return np.where(np.eye(len(num_EE), dtype=bool), moment_EE, off)


def stack(age_NE: np.ndarray, covariance_EE: np.ndarray) -> np.ndarray:
    """Return ages by the weights of least expected squared error, float64 (N,), 0 to 100 years.

    w = S^-1 1 / (1' S^-1 1) with the part of the covariance S that belongs to the experts that
    answered an image. A weight may be negative: of two experts that err alike, the worse one.

    Args:
        age_NE: float (N, E), corrected ages; NaN where an expert did not answer.
        covariance_EE: float (E, E), from `error_covariance` on other identities.
    """
    answered_NE = np.isfinite(age_NE) & np.isfinite(np.diag(covariance_EE))
    stacked_N = np.full(len(age_NE), np.nan)
    for pattern_E in np.unique(answered_NE, axis=0):
        if not pattern_E.any():
            continue
        rows = (answered_NE == pattern_E).all(axis=1)
        inside = covariance_EE[np.ix_(pattern_E, pattern_E)]
        # A hundredth of a year^2: two identical experts must not make it singular.
        raw = np.linalg.solve(inside + 0.01 * np.eye(len(inside)), np.ones(len(inside)))
        stacked_N[rows] = age_NE[np.ix_(rows, pattern_E)] @ (raw / raw.sum())
    return np.clip(stacked_N, 0.0, 100.0)


def crossfitted_stack(read: CrossFitted) -> np.ndarray:
    """Return stacked ages, each image's weights from the other folds' errors, float64 (N,)."""
    stacked_N = np.full(len(read.age_N), np.nan)
    for fold in np.unique(read.fold_N):
        held = read.fold_N == fold
        covariance_EE = error_covariance(read.take(~held))
        stacked_N[held] = stack(read.expert_age_NE[held], covariance_EE)
    return stacked_N


def _worst_group_gain(
    other_N: np.ndarray,
    mixture_N: np.ndarray,
    truth_N: np.ndarray,
    identity_N: np.ndarray,
    sampling: Sampling,
) -> Measure:
    """Compare the worst groups' errors, over groups with enough images for a figure."""
    group_N = groups_of(truth_N)
    code_N = np.array([AGE_GROUPS.index(group) for group in group_N], dtype=np.int64)
    counts = np.bincount(code_N, minlength=len(AGE_GROUPS))
    large = counts >= sampling.min_cell
    inside = large[code_N]

    def difference(other: np.ndarray, mixture: np.ndarray, code: np.ndarray) -> float:
        num = np.bincount(code, minlength=len(AGE_GROUPS))
        with np.errstate(invalid="ignore", divide="ignore"):
            first = np.bincount(code, other, len(AGE_GROUPS)) / num
            second = np.bincount(code, mixture, len(AGE_GROUPS)) / num
        return float(np.nanmax(first) - np.nanmax(second))

    columns = [other_N[inside], mixture_N[inside], code_N[inside]]
    return measure(difference, columns, identity_N[inside], sampling, "years")
