"""Original labels that are probably wrong, ranked for a person to look at (cleanlab).

Shapes: N images, G age groups.
"""

import warnings
from pathlib import Path

import numpy as np
import polars as pl

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path, write_text
from agetf_pipeline.data.ages import AGE_GROUPS, group_bounds
from agetf_pipeline.data.csv_files import for_spreadsheets

ISSUES_SCHEMA: dict[str, type[pl.DataType]] = {
    "rank": pl.Int32,
    "image_id": pl.String,
    "is_issue": pl.Boolean,
    "quality_score": pl.Float64,
    "original_age_group": pl.String,
    "suggested_age_group": pl.String,
    "p_original": pl.Float64,
    "p_suggested": pl.Float64,
    "age_years": pl.Float64,
    "interval_low_years": pl.Float64,
    "interval_high_years": pl.Float64,
    "distance_years": pl.Float64,
}
"""Columns of the list of label issues."""

_DECIMALS = 6
_AGES = ["age_years", "interval_low_years", "interval_high_years"]


def find_label_issues(labels: pl.DataFrame, group_NG: np.ndarray) -> pl.DataFrame:
    """Rank the original labels of images, the most doubtful first.

    The score is cleanlab's self-confidence, the probability that the mixture gives to the original
    group. The ordinal nature of the labels is in it: the probability falls with the distance from
    the estimate in units of the mixture's own sigma, so that a label next door is doubtful only
    where the mixture is sure, and a far one always. Where the score runs out of digits, the larger
    `distance_years` comes first. The alternative, the normalized margin to the best other group,
    puts images on the border of two groups before labels that are decades off: on simulated labels
    (docs/decisions/0008-cleanlab.md) 59 % of its first 64 were wrong, against 88 %.

    The verdict is cleanlab's too: as many labels as its confident joint estimates to be wrong, the
    lowest scores. The joint knows no order of the groups, and most of what it counts are confusions
    of neighbours: a list to review, not one to correct without looking.

    Args:
        labels: Needed are image_id, original_age_group (null: nothing to compare, left out),
            age_years, interval_low_years and interval_high_years; rows of table `labels`, say.
        group_NG: float (N, 10), the mixture's probability of every age group of the same rows, in
            the order of `AGE_GROUPS`, by experts (and a calibration) that did not see these labels.
            Rows of NaN have no estimate, and are left out.

    Returns:
        Columns of `ISSUES_SCHEMA`, by rank from 1. `is_issue` is null where the labels are all of
        one group: nothing can be said of how often groups are confused. `distance_years` is that of
        the estimate to the nearest age of the original group, 0 inside.

    Raises:
        DataError: The shapes do not go together, or a group is not one of FFHQ-Aging's.
    """
    if group_NG.shape != (labels.height, len(AGE_GROUPS)):
        raise DataError(
            f"Expected probabilities of shape ({labels.height}, {len(AGE_GROUPS)}), a row per "
            f"label; found {group_NG.shape}."
        )
    unknown = set(labels["original_age_group"].drop_nulls().unique()) - set(AGE_GROUPS)
    if unknown:
        raise DataError(
            f"Expected original age groups of {AGE_GROUPS}; found {sorted(unknown)}. Correct the "
            "corpus's labels and run ingest again."
        )
    known = labels["original_age_group"].is_not_null().to_numpy() & np.isfinite(group_NG).all(1)
    rows = labels.filter(pl.Series(known, dtype=pl.Boolean))
    if not rows.height:
        return pl.DataFrame(schema=ISSUES_SCHEMA)
    p_NG = np.clip(group_NG[known].astype(np.float64), 0.0, 1.0)
    p_NG /= np.maximum(p_NG.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    given_N = np.array([AGE_GROUPS.index(group) for group in rows["original_age_group"]])
    score_N, verdict_N = _judge(given_N, p_NG)
    places = np.arange(rows.height)
    suggested_N = p_NG.argmax(axis=1)
    found = rows.select(
        "image_id",
        pl.Series("is_issue", verdict_N, dtype=pl.Boolean),
        pl.Series("quality_score", score_N.round(_DECIMALS)),
        "original_age_group",
        pl.Series("suggested_age_group", [AGE_GROUPS[group] for group in suggested_N]),
        pl.Series("p_original", p_NG[places, given_N].round(_DECIMALS)),
        pl.Series("p_suggested", p_NG[places, suggested_N].round(_DECIMALS)),
        *(pl.col(name).cast(pl.Float64) for name in _AGES),
        pl.Series("distance_years", _distance(rows["age_years"], given_N)),
    )
    ranked = found.sort(
        pl.col("is_issue").fill_null(False),
        "quality_score",
        "distance_years",
        "image_id",
        descending=[True, False, True, False],
        nulls_last=True,
    )
    rank = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias("rank")
    return ranked.select(rank, pl.all()).select(pl.col(ISSUES_SCHEMA.keys()))


def write_issue_tables(folder: Path, issues: pl.DataFrame) -> dict[str, Path]:
    """Write the list as `label_issues.csv` and `.parquet`; return the files by name."""
    csv, parquet = folder / "label_issues.csv", folder / "label_issues.parquet"
    write_text(csv, for_spreadsheets(issues))
    with atomic_path(parquet) as temporary:
        issues.write_parquet(temporary, compression="zstd")
    return {"label_issues_csv": csv, "label_issues": parquet}


def _judge(given_N: np.ndarray, p_NG: np.ndarray) -> tuple[np.ndarray, list[bool | None]]:
    """Return cleanlab's scores, float64 (N,), 0 to 1, and its verdicts."""
    # sklearn and pandas come with it: seconds.
    from cleanlab import filter as cleanlab_filter
    from cleanlab.rank import get_label_quality_scores

    score_N = get_label_quality_scores(given_N, p_NG, method="self_confidence")
    if len(np.unique(given_N)) < 2:
        return score_N, [None] * len(given_N)
    with warnings.catch_warnings():
        # Of groups with a handful of labels it says that it may miss some: it has to.
        warnings.simplefilter("ignore", UserWarning)
        verdict_N = cleanlab_filter.find_label_issues(
            given_N, p_NG, filter_by="low_self_confidence", n_jobs=1
        )
    return score_N, np.asarray(verdict_N, dtype=bool).tolist()


def _distance(age_years: pl.Series, given_N: np.ndarray) -> np.ndarray:
    """Return how far estimates lie outside the original group, float64 (N,), years, 0 inside."""
    age_N = age_years.cast(pl.Float64).to_numpy()
    bounds = np.array([group_bounds(group) for group in AGE_GROUPS])
    bounds[-1, 1] = np.inf  # people get older than the last bin
    below, above = bounds[given_N, 0] - age_N, age_N - bounds[given_N, 1]
    return np.maximum(0.0, np.maximum(below, above)).round(_DECIMALS)
