import numpy as np
import polars as pl
import pytest

from agetf_pipeline.config.register import GatesConfig
from agetf_pipeline.core.statistics import Sampling
from agetf_pipeline.registry.label_gate import (
    BELOW_MIDPOINTS,
    DIFFERENCE,
    EMPTY_ROWS,
    LABEL_MAE,
    MeasuredLabels,
    compare_labels,
    decide_labels,
    label_rows,
)
from agetf_pipeline.registry.promotion import Compared

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


CHAMPION = Compared("1", "a" * 64, "synthetic")
EVALUATION = {
    "synthetic": True,
    "sampling": {"level": 0.95, "num_bootstrap": 200, "min_cell": 30},
    "must_hold": [],
    "metrics": FIGURES,
}


def decide(rows, champion=CHAMPION, former=None, not_its_own=None, **changed):
    measured = MeasuredLabels(EVALUATION | changed, rows, 0, not_its_own)
    return decide_labels(measured, champion, former, GatesConfig())


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
    for decision in (decide(EMPTY_ROWS, champion=None), decide(rows, None, metrics=absent)):
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
    assert any("suppressed: n = 10 is below 30" in reason for reason in decision.reasons)


def test_a_mixture_that_leaves_out_what_is_hard_is_not_promoted():
    former = rows_of(np.full(100, 5.0))
    better = rows_of(np.full(100, 4.0))
    assert decide(better, former=former).promote
    assert decide(better.head(98), former=former).promote
    decision = decide(better.head(97), former=former)
    assert not decision.promote
    assert "of the 100 images" in decision.reasons[0]
    assert "97 have a label (97.0%), fewer than 98%" in decision.reasons[0]


def test_equal_and_slightly_worse_labels_do_not_take_the_place():
    former = rows_of(np.full(100, 5.0))
    for error_years, says in ((5.0, "the champion stays"), (5.2, "better in nothing that counts")):
        decision = decide(rows_of(np.full(100, error_years)), former=former)
        assert not decision.promote
        assert not any(gate.closes for gate in decision.gates)
        assert says in decision.reasons[-1]


def test_the_first_has_to_be_better_than_the_corpus():
    rows = rows_of(np.full(100, 2.0))
    for verdict, promote in (("holds", True), ("not judged", True), ("does not hold", False)):
        statements = [{"name": BELOW_MIDPOINTS, "verdict": verdict, "text": "It is closer."}]
        decision = decide(rows, champion=None, must_hold=statements)
        assert decision.promote is promote
        assert ("'It is closer.' does not hold" in decision.reasons) is not promote
    few = decide(rows.head(29), champion=None)
    assert not few.promote
    assert "rests on 29 images, fewer than 30" in few.reasons[0]


def test_labels_of_another_mixture_are_not_its_own():
    decision = decide(rows_of(np.full(100, 1.0)), champion=None, not_its_own="of other labels")
    assert not decision.promote
    assert decision.reasons[0] == "label MAE: not measured (of other labels)"


def test_weak_intervals_and_faces_of_another_kind_prove_nothing():
    rows, former = rows_of(np.full(100, 4.0)), rows_of(np.full(100, 5.0))
    weak = EVALUATION["sampling"] | {"num_bootstrap": 20}
    for champion in (None, CHAMPION):
        decision = decide(rows, champion, former, sampling=weak)
        assert not decision.promote
        assert "20 resamples" in decision.reasons[0]
    decision = decide(rows, Compared("1", "", "workspace corpus"), former)
    assert not decision.promote
    assert "measured on synthetic faces" in decision.reasons[0]


def test_only_labels_with_a_truth_count():
    labels = rows_of(np.array([1.0, np.nan, 2.0])).with_columns(kind=pl.lit("label"))
    others = rows_of(np.zeros(2), 10).with_columns(kind=pl.lit("rendering"))
    assert label_rows(pl.concat([labels, others]))["image_id"].to_list() == ["0000", "0002"]
