"""The mixture's gate: its labels against the champion's, on the same images, by the same truth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from agetf_pipeline.config.register import GatesConfig
from agetf_pipeline.core.statistics import Measure, Sampling, measure_mean
from agetf_pipeline.data.ages import AGE_GROUPS, group_of
from agetf_pipeline.registry.promotion import (
    AGAINST,
    BY_HAND,
    Decision,
    Rule,
    decide_by,
    judge,
    spell,
)

LABEL_MAE = "labels/mae_years/mixture"
DIFFERENCE = f"{AGAINST}/label_mae_years"
_COLUMNS = ("image_id", "identity", "target_age_years", "age_years")
EMPTY_ROWS = pl.DataFrame(
    schema=dict(zip(_COLUMNS, (pl.String, pl.String, pl.Float64, pl.Float64), strict=True))
)
"""What `label_rows` gives where there is nothing."""


def label_rows(per_image: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of labels with a known truth: image_id, identity, truth, estimate.

    Args:
        per_image: A run's per_image.parquet.
    """
    known = pl.col("target_age_years").is_finite() & pl.col("age_years").is_finite()
    labels = per_image.filter(pl.col("kind") == "label").select(_COLUMNS)
    return labels.filter(known).sort("image_id")


def compare_labels(
    rows: pl.DataFrame, champion_rows: pl.DataFrame, sampling: Sampling
) -> dict[str, Measure]:
    """Measure how much further from the truth labels are than the champion's.

    Args:
        rows: From `label_rows`, of the challenger.
        champion_rows: Likewise, as logged with the champion.
        sampling: How intervals are made.

    Returns:
        The mean difference of absolute errors in years, challenger minus champion, on the images
        that both have: overall and by true age group.
    """
    former = champion_rows.select("image_id", pl.col("age_years").alias("former_years"))
    both = rows.join(former, on="image_id").sort("image_id")
    truth, identities = both["target_age_years"].to_numpy(), both["identity"].to_numpy()
    difference = np.abs(both["age_years"].to_numpy() - truth) - np.abs(
        both["former_years"].to_numpy() - truth
    )
    groups = np.array([group_of(age) for age in truth.tolist()], dtype=object)
    measures = {DIFFERENCE: measure_mean(difference, identities, sampling, "years")}
    for group in AGE_GROUPS:
        inside = groups == group
        measures[f"{DIFFERENCE}/age_group={group}"] = measure_mean(
            difference[inside], identities[inside], sampling, "years"
        )
    return measures


def decide_labels(
    figures: Mapping[str, Mapping[str, Any]],
    rows: pl.DataFrame,
    champion: str | None,
    champion_rows: pl.DataFrame | None,
    gates: GatesConfig,
    sampling: Sampling,
) -> Decision:
    """Decide whether a mixture may take the champion's place.

    Args:
        figures: Figures of metrics.json by name.
        rows: From `label_rows`; empty where the truth is not known.
        champion: Version of the champion mixture; None where there is none.
        champion_rows: Its logged rows; None where it has none.
        gates: The margins.
        sampling: How intervals are made.
    """
    item = figures.get(LABEL_MAE, {})
    if rows.is_empty() or item.get("value") is None:
        reason = item.get("reason") or "no image has a label and a known truth"
        return Decision(False, (f"label MAE: not measured ({reason})", BY_HAND))
    if champion is None:
        return Decision(True, ("there is no champion yet", f"label MAE (years): {spell(item)}"))
    if champion_rows is None or champion_rows.is_empty():
        return Decision(
            False,
            (f"the champion, version {champion}, has no labels with a known truth to compare with",
             BY_HAND),
        )  # fmt: skip
    measures = compare_labels(rows, champion_rows, sampling)
    rules = [
        Rule(DIFFERENCE, "label MAE (years)", gates.max_label_mae_increase_years, required=True),
        Rule(
            DIFFERENCE, "label MAE (years)", gates.max_group_age_mae_increase_years, by_cell=True
        ),
    ]  # fmt: skip
    return decide_by(judge({name: item.as_dict() for name, item in measures.items()}, rules))
