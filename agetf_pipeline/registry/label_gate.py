"""The mixture's gate: its labels against the champion's, on the same images, by the same truth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from agetf_pipeline.config.register import GatesConfig
from agetf_pipeline.core.statistics import Measure, Sampling, measure_mean
from agetf_pipeline.data.ages import AGE_GROUPS, group_of
from agetf_pipeline.registry.gates import AGAINST, Rule, judge, spell
from agetf_pipeline.registry.promotion import (
    BY_HAND,
    Compared,
    Decision,
    decide_by,
    failed_statement,
    of_another_kind,
    weak_evidence,
)

LABEL_MAE = "labels/mae_years/mixture"
DIFFERENCE = f"{AGAINST}/label_mae_years"
BELOW_MIDPOINTS = "mixture_below_group_midpoints"
_COLUMNS = ("image_id", "identity", "target_age_years", "age_years")
EMPTY_ROWS = pl.DataFrame(
    schema=dict(zip(_COLUMNS, (pl.String, pl.String, pl.Float64, pl.Float64), strict=True))
)
"""What `label_rows` gives where there is nothing."""


@dataclass(frozen=True)
class MeasuredLabels:
    """What an evaluation says of a mixture's labels.

    Attributes:
        evaluation: The contents of metrics.json.
        rows: From `label_rows`; empty where the truth is not known.
        seed: Of the intervals.
        not_its_own: Why the labels that were measured are not this mixture's; None: they are.
    """

    evaluation: Mapping[str, Any]
    rows: pl.DataFrame
    seed: int = 0
    not_its_own: str | None = None

    @property
    def synthetic(self) -> bool:
        """Whether they were measured on drawn faces."""
        return bool(self.evaluation["synthetic"])

    @property
    def figure(self) -> Mapping[str, Any]:
        """The error of the labels."""
        return self.evaluation["metrics"].get(LABEL_MAE, {})

    @property
    def sampling(self) -> Sampling:
        """How the evaluation made its intervals."""
        its = self.evaluation["sampling"]
        return Sampling(
            its["num_bootstrap"], its["level"], its["min_cell"], self.seed, self.synthetic
        )


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
    measured: MeasuredLabels,
    champion: Compared | None,
    champion_rows: pl.DataFrame | None,
    gates: GatesConfig,
) -> Decision:
    """Decide whether a mixture may take the champion's place.

    Args:
        measured: Its labels.
        champion: The champion mixture; None where there is none.
        champion_rows: Its logged rows; None where it has none.
        gates: The margins, and the least evidence.
    """
    rows, item = measured.rows, measured.figure
    if measured.not_its_own is not None or rows.is_empty() or item.get("value") is None:
        reason = measured.not_its_own or item.get("reason") or "no image has a known truth"
        return Decision(False, (f"label MAE: not measured ({reason})", BY_HAND))
    weak = weak_evidence(measured.evaluation.get("sampling"), gates)
    if champion is None:
        return _decide_first(measured, gates).refused(*weak)
    if weak:
        return Decision(False, weak)
    reason = of_another_kind(measured.synthetic, champion)
    if reason is None and (champion_rows is None or champion_rows.is_empty()):
        reason = (
            f"the champion, version {champion.version}, has no labels with a known truth to "
            f"compare with; {BY_HAND}"
        )
    if reason is not None or champion_rows is None:
        return Decision(False, (reason or "",))
    measures = compare_labels(rows, champion_rows, measured.sampling)
    rules = [
        Rule(DIFFERENCE, "label MAE (years)", gates.max_label_mae_increase_years, required=True),
        Rule(
            DIFFERENCE, "label MAE (years)", gates.max_group_age_mae_increase_years, by_cell=True
        ),
    ]  # fmt: skip
    judged = judge({name: item.as_dict() for name, item in measures.items()}, rules)
    uncovered = _uncovered(rows, champion_rows, champion, gates.min_label_coverage)
    return decide_by(judged, gates.min_faces).refused(*uncovered)


def _decide_first(measured: MeasuredLabels, gates: GatesConfig) -> Decision:
    """Decide without a champion: the labels have to be worth more than the corpus's own."""
    first = Decision(
        True, ("there is no champion yet", f"label MAE (years): {spell(measured.figure)}")
    )
    against = []
    if measured.rows.height < gates.min_faces:
        against.append(
            f"label MAE rests on {measured.rows.height} images, fewer than {gates.min_faces}"
        )
    failed = failed_statement(measured.evaluation, BELOW_MIDPOINTS)
    if failed is not None:
        against.append(failed)
    return first.refused(*against, BY_HAND) if against else first


def _uncovered(
    rows: pl.DataFrame, champion_rows: pl.DataFrame, champion: Compared, least: float
) -> tuple[str, ...]:
    """Say that too many images which the champion labelled have no label any more.

    Whoever leaves out what is hard has a smaller error on the rest.
    """
    num_both = champion_rows.join(rows, on="image_id", how="semi").height
    share = num_both / champion_rows.height
    if share >= least:
        return ()
    return (
        f"of the {champion_rows.height} images that the champion, version {champion.version}, "
        f"labelled, {num_both} have a label ({share:.1%}), fewer than {least:.0%} "
        "(register_model.gates.min_label_coverage)",
    )
