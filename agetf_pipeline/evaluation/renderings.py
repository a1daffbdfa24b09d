"""Renderings: the ages read from them against the ages asked for.

Shapes: N faces, A anchors, M real faces.
"""

from collections.abc import Sequence

import numpy as np

from agetf_pipeline.core.statistics import (
    Measure,
    Sampling,
    Statistic,
    absent,
    emd_years,
    measure,
    order_violation_rate,
    slope,
    spearman,
)
from agetf_pipeline.evaluation.scores import mean_of

NO_EMD_INTERVAL = "no interval: distances of resampled distributions are biased upwards"
NEAR_YEARS = 5.0
"""Real faces at most so far from an anchor are what renderings at it are compared with."""


def measure_ages(
    read_NA: np.ndarray,
    anchors_years: Sequence[float],
    identities: np.ndarray,
    sampling: Sampling,
    reader: str = "",
) -> dict[str, Measure]:
    """Measure how the ages read follow the target ages, over all anchors and at each.

    Args:
        read_NA: Ages read in years (N, A), anchors ascending; NaN where none was read.
        anchors_years: The target ages (A,).
        identities: Person of each face (N,).
        sampling: How intervals are made; n counts faces.
        reader: Prefix of the figures' names: empty for the estimator outside training.
    """
    prefix = f"renderings/{reader}"
    targets_A = np.asarray(anchors_years, np.float64)
    whole = np.isfinite(read_NA).all(axis=1)
    read, people = read_NA[whole], identities[whole]
    left_out = f"{(~whole).sum()} of {len(read_NA)} faces have no such reading"

    def of_whole(statistic: Statistic, columns: list[np.ndarray]) -> Measure:
        found = measure(statistic, columns, people, sampling)
        return found if whole.all() else found.noted(left_out)

    target_NA = np.broadcast_to(targets_A, read.shape)
    per_face = np.array([spearman(t, r) for t, r in zip(target_NA, read, strict=True)])
    # A face whose readings never change has no rank correlation: it did not age at all.
    per_face = np.nan_to_num(per_face, nan=0.0)
    errors_NA = read_NA - targets_A
    measures = {
        f"{prefix}age_bias_years": mean_of(errors_NA.mean(axis=1), identities, sampling, "years"),
        f"{prefix}age_slope": of_whole(lambda t, r: slope(t.ravel(), r.ravel()), [target_NA, read]),
        f"{prefix}age_spearman": of_whole(
            lambda t, r: spearman(t.ravel(), r.ravel()), [target_NA, read]
        ),
        f"{prefix}age_spearman_per_face": of_whole(lambda v: float(v.mean()), [per_face]),
        f"{prefix}order_violation_rate": of_whole(order_violation_rate, [read]),
    }
    for a, anchor in enumerate(anchors_years):
        at, key = read_NA[:, a], f"{anchor:g}"
        for name, values in (
            ("age_read_years", at),
            ("age_mae_years", np.abs(at - anchor)),
            ("age_bias_years", at - anchor),
        ):
            measures[f"{prefix}{name}/{key}"] = mean_of(values, identities, sampling, "years")
        known = np.isfinite(at)
        measures[f"{prefix}age_sd_years/{key}"] = measure(
            lambda values: float(values.std(ddof=1)), [at[known]], identities[known], sampling,
            "years",
        )  # fmt: skip
    return measures


def measure_age_distributions(
    read_NA: np.ndarray,
    anchors_years: Sequence[float],
    real_read_M: np.ndarray,
    real_ages_M: np.ndarray,
    identities: np.ndarray,
    sampling: Sampling,
) -> dict[str, Measure]:
    """Measure how far the ages read at each anchor are from those read of real people of that age.

    The earth mover's distance in years: an estimator that reads all children as twelve reads the
    real ones so, too, and both distributions carry its error alike. It is biased upwards by few
    faces, as every distance of samples is: no interval, but beside it what two halves of the real
    faces come to.

    Args:
        read_NA: Ages read of renderings (N, A).
        anchors_years: Target ages (A,).
        real_read_M: Ages read of real faces by the same reader.
        real_ages_M: Their ages; those within `NEAR_YEARS` of an anchor stand for it.
        identities: Person of each rendered face (N,).
        sampling: How intervals are made: over the rendered faces, the real ones held fixed.
    """
    measures = {}
    for a, anchor in enumerate(anchors_years):
        near = real_read_M[np.abs(real_ages_M - anchor) <= NEAR_YEARS]
        name = f"renderings/age_emd_years/{anchor:g}"
        if len(near) < sampling.min_cell:
            measures[name] = absent(
                f"suppressed: {len(near)} real faces within {NEAR_YEARS:g} years are fewer than "
                f"{sampling.min_cell}",
                "years", len(near), sampling.synthetic,
            )  # fmt: skip
            continue
        at = read_NA[:, a]
        if len(at) < sampling.min_cell:
            reason = f"suppressed: n = {len(at)} is below {sampling.min_cell}"
            measures[name] = absent(reason, "years", len(at), sampling.synthetic)
            continue
        halves = emd_years(near[::2], near[1::2])
        measures[name] = Measure(
            emd_years(at, near), n=len(at), num_identities=len(np.unique(identities)),
            unit="years", synthetic=sampling.synthetic, reason=NO_EMD_INTERVAL,
            note=f"against {len(near)} real faces; two halves of them: {halves:.2f} years",
        )  # fmt: skip
    return measures


def missing_ages(reason: str, sampling: Sampling, reader: str = "") -> dict[str, Measure]:
    """Return the figures of ages read as not computed, with the reason."""
    names = ("age_mae_years", "age_bias_years", "age_slope", "age_spearman",
             "age_spearman_per_face", "order_violation_rate")  # fmt: skip
    return {
        f"renderings/{reader}{name}": absent(reason, synthetic=sampling.synthetic) for name in names
    }
