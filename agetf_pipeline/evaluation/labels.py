"""Labels against the truth: the mixture beside the corpus's own groups and every single expert."""

import json
from collections.abc import Mapping

import numpy as np
import polars as pl

from agetf_pipeline.core.statistics import (
    Measure,
    Sampling,
    absent,
    emd_years,
    measure,
    measure_mean,
)
from agetf_pipeline.data.ages import AGE_GROUPS, group_midpoint, group_of
from agetf_pipeline.evaluation.cells import cells_of

MIDPOINTS, MIXTURE = "group_midpoints", "mixture"
EQUAL_MEAN, EQUAL_MEDIAN = "equal_mean", "equal_median"

NO_TRUTH = "the true ages of this corpus are not known: only a synthetic corpus has a truth table"


def join_labels(
    images: pl.DataFrame, labels: pl.DataFrame, predictions: pl.DataFrame, truth: pl.DataFrame
) -> pl.DataFrame:
    """Join every estimate of an image's age with its truth.

    Args:
        images: Table `images` of one partition.
        labels: Table `labels` of the partition.
        predictions: Table `predictions` of the partition.
        truth: The truth table.

    Returns:
        One row per image on which all methods have an answer, so that they are compared on the
        same images: image_id, identity, true_age_years, true_group, gender (empty where it is
        not known), the interval's ends, and a column of years per method (`group_midpoints`,
        `mixture`, `equal_mean`, `equal_median`,
        `expert_<name>`).
    """
    answered = predictions.filter((pl.col("status") == "ok") & pl.col("age_years").is_not_null())
    wide = answered.pivot("expert", index="image_id", values="age_years")
    experts = sorted(set(wide.columns) - {"image_id"})
    midpoints = {group: group_midpoint(group) for group in AGE_GROUPS}
    joined = (
        truth.select("image_id", "identity", "true_age_years")
        .join(images.select("image_id", "age_group", "gender"), on="image_id")
        .join(
            labels.select(
                "image_id", pl.col("age_years").alias(MIXTURE),
                "interval_low_years", "interval_high_years",
            ),
            on="image_id",
        )
        .join(wide.rename({name: f"expert_{name}" for name in experts}), on="image_id")
    )  # fmt: skip
    columns = [f"expert_{name}" for name in experts]
    together = pl.concat_list(columns) if columns else pl.lit(None, pl.List(pl.Float32))
    return (
        joined.with_columns(
            pl.col("age_group").replace_strict(midpoints, default=None, return_dtype=pl.Float64)
            .alias(MIDPOINTS),
            together.list.mean().alias(EQUAL_MEAN),
            together.list.median().alias(EQUAL_MEDIAN),
            pl.col("true_age_years").map_elements(group_of, pl.String).alias("true_group"),
        )
        .with_columns(pl.col("gender").fill_null(""))
        .drop("age_group")
        .drop_nulls([MIDPOINTS, MIXTURE, *columns])
        .sort("image_id")
    )  # fmt: skip


def methods_of(joined: pl.DataFrame) -> list[str]:
    """Return the columns of estimates: midpoints, mixture, equal weights, each expert."""
    experts = sorted(name for name in joined.columns if name.startswith("expert_"))
    return [MIDPOINTS, MIXTURE, EQUAL_MEAN, EQUAL_MEDIAN, *experts]


def measure_labels(joined: pl.DataFrame, sampling: Sampling) -> dict[str, Measure]:
    """Measure each method's error, the mixture's advantage, and its intervals' coverage.

    Args:
        joined: From `join_labels`.
        sampling: How intervals are made.
    """
    identities = joined["identity"].to_numpy()
    true = joined["true_age_years"].to_numpy().astype(np.float64)
    errors = {name: np.abs(joined[name].to_numpy() - true) for name in methods_of(joined)}
    measures = {
        f"labels/mae_years/{name}": measure_mean(error, identities, sampling, "years")
        for name, error in errors.items()
    }
    for name in (MIDPOINTS, MIXTURE):
        within = (errors[name] <= 5).astype(np.float64)
        measures[f"labels/cs5/{name}"] = measure_mean(within, identities, sampling)
        measures[f"labels/age_emd_years/{name}"] = _distance(
            joined[name].to_numpy(), true, sampling
        )
    measures["labels/mae_gain_years"] = measure_mean(
        errors[MIDPOINTS] - errors[MIXTURE], identities, sampling, "years"
    )
    best = best_expert(measures)
    if best is not None:
        measures["labels/mae_ratio_to_best_expert"] = measure(
            _ratio, [errors[MIXTURE], errors[best]], identities, sampling
        )
    measures |= _coverage(joined, true, identities, sampling)
    for group in AGE_GROUPS:
        inside = (joined["true_group"] == group).to_numpy()
        for name in (MIDPOINTS, MIXTURE):
            measures[f"labels/mae_years/{name}/{group}"] = measure_mean(
                errors[name][inside], identities[inside], sampling, "years"
            )
    for cell, inside in cells_of({"gender": joined["gender"].to_numpy()}):
        for name in (MIDPOINTS, MIXTURE):
            measures[f"labels/mae_years/{name}/{cell}"] = measure_mean(
                errors[name][inside], identities[inside], sampling, "years"
            )
    return measures


def _distance(estimates: np.ndarray, true: np.ndarray, sampling: Sampling) -> Measure:
    n = len(true)
    if n < sampling.min_cell:
        reason = f"suppressed: n = {n} is below {sampling.min_cell}"
        return absent(reason, "years", n, sampling.synthetic)
    reason = "no interval: distances of resampled distributions are biased upwards"
    value = emd_years(estimates, true)
    return Measure(value, n=n, unit="years", synthetic=sampling.synthetic, reason=reason)


def best_expert(measures: Mapping[str, Measure]) -> str | None:
    """Return the expert of the lowest error, `expert_<name>`; None where none was measured."""
    prefix = "labels/mae_years/"
    values = {
        name.removeprefix(prefix): item.value
        for name, item in measures.items()
        if name.startswith(f"{prefix}expert_") and item.value is not None
    }
    return min(values, key=lambda name: values[name]) if values else None


def missing_labels(reason: str, sampling: Sampling) -> dict[str, Measure]:
    """Return the figures of labels as not computed, with the reason."""
    names = [
        f"labels/mae_years/{MIDPOINTS}", f"labels/mae_years/{MIXTURE}", "labels/mae_gain_years",
        "labels/mae_ratio_to_best_expert", "labels/interval_coverage",
    ]  # fmt: skip
    return {name: absent(reason, synthetic=sampling.synthetic) for name in names}


def _coverage(
    joined: pl.DataFrame, true: np.ndarray, identities: np.ndarray, sampling: Sampling
) -> dict[str, Measure]:
    low = joined["interval_low_years"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    high = joined["interval_high_years"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    known = np.isfinite(low) & np.isfinite(high)
    inside = ((low <= true) & (true <= high))[known].astype(np.float64)
    width = (high - low)[known]
    return {
        "labels/interval_coverage": measure_mean(inside, identities[known], sampling),
        "labels/interval_width_years": measure_mean(width, identities[known], sampling, "years"),
    }


def _ratio(errors: np.ndarray, of_best: np.ndarray) -> float:
    mean = float(of_best.mean())
    return float(errors.mean()) / mean if mean > 0 else float("nan")


def per_image_rows(joined: pl.DataFrame) -> pl.DataFrame:
    """Return the joined rows in the report's per-image form: kind, estimates as JSON, truth."""
    methods = methods_of(joined)
    estimates = [
        json.dumps({name: round(float(row[name]), 3) for name in methods}, sort_keys=True)
        for row in joined.iter_rows(named=True)
    ]
    return joined.select(
        pl.lit("label").alias("kind"),
        "image_id",
        "identity",
        pl.col("true_age_years").cast(pl.Float64).alias("target_age_years"),
        pl.col(MIXTURE).cast(pl.Float64).alias("age_years"),
        pl.Series("detail", estimates, dtype=pl.String),
    )
