import numpy as np
import polars as pl
import pytest

from agetf_pipeline.config.register import GatesConfig
from agetf_pipeline.core.statistics import Sampling
from agetf_pipeline.registry.label_gate import (
    DIFFERENCE,
    EMPTY_ROWS,
    LABEL_MAE,
    compare_labels,
    decide_labels,
    label_rows,
)

SAMPLING = Sampling(num_bootstrap=200)
FIGURES = {LABEL_MAE: {"value": 5.0, "low": 4.8, "high": 5.2, "n": 200}}


def rows_of(errors_years: np.ndarray, first: int = 0, truth_years: float = 25.0) -> pl.DataFrame:
    numbers = range(first, first + len(errors_years))
    return pl.DataFrame(
        {
            "image_id": [f"{i:04d}" for i in numbers],
            "identity": [f"person-{i % 50}" for i in numbers],
            "target_age_years": np.full(len(errors_years), truth_years),
            "age_years": truth_years + errors_years,
        }
    )


def decide(rows, champion="1", former=None, figures=FIGURES):
    return decide_labels(figures, rows, champion, former, GatesConfig(), SAMPLING)


def test_absolute_errors_are_compared_on_the_images_that_both_have():
    new, old = rows_of(np.full(100, -4.0)), rows_of(np.full(100, 3.0), first=60)
    measures = compare_labels(new, old, SAMPLING)
    assert measures[DIFFERENCE].n == 40
    assert measures[DIFFERENCE].value == pytest.approx(1.0)
    assert measures[f"{DIFFERENCE}/age_group=20-29"].value == pytest.approx(1.0)
    assert measures[f"{DIFFERENCE}/age_group=30-39"].value is None


def test_a_group_can_close_the_gate_though_all_together_are_better():
    young, old = rows_of(np.full(300, 1.0)), rows_of(np.full(40, 9.0), 300, 80.0)
    former = pl.concat([rows_of(np.full(300, 5.0)), rows_of(np.full(40, 5.0), 300, 80.0)])
    decision = decide(pl.concat([young, old]), former=former)
    assert not decision.promote
    assert [gate.closes for gate in decision.gates] == [False, True]
    assert decision.gates[1].figure == f"{DIFFERENCE}/age_group=70-120"


def test_the_first_needs_a_known_truth_and_figures():
    rows = rows_of(np.full(100, 2.0))
    assert decide(rows, champion=None).promote
    absent = {LABEL_MAE: {"value": None, "reason": "the true ages are not known"}}
    for decision in (decide(EMPTY_ROWS, champion=None), decide(rows, None, figures=absent)):
        assert not decision.promote
        assert "label MAE: not measured" in decision.reasons[0]
        assert "agetf registry promote" in decision.reasons[1]


def test_a_champion_without_rows_cannot_be_compared_with():
    for former in (None, EMPTY_ROWS):
        decision = decide(rows_of(np.full(100, 0.0)), former=former)
        assert not decision.promote
        assert "version 1, has no labels with a known truth" in decision.reasons[0]


def test_too_few_shared_images_prove_nothing():
    decision = decide(rows_of(np.zeros(100)), former=rows_of(np.zeros(100), first=90))
    assert not decision.promote
    assert "suppressed: n = 10 is below 30" in decision.reasons[0]


def test_only_labels_with_a_truth_count():
    labels = rows_of(np.array([1.0, np.nan, 2.0])).with_columns(kind=pl.lit("label"))
    others = rows_of(np.zeros(2), 10).with_columns(kind=pl.lit("rendering"))
    assert label_rows(pl.concat([labels, others]))["image_id"].to_list() == ["0000", "0002"]
