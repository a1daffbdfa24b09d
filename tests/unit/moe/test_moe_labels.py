"""From predictions to labels: decisions, nulls with their reasons, versions."""

import json

import polars as pl
import pytest

from agetf_pipeline.config.relabel import RelabelConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.schemas import PREDICTIONS
from agetf_pipeline.data.tables import to_frame
from agetf_pipeline.moe.calibration import Calibration, ExpertCalibration, uncalibrated
from agetf_pipeline.moe.labels import label_predictions

CALIBRATION = Calibration(
    calibrated=True,
    experts={
        name: ExpertCalibration(model_version="v1", num_images=100) for name in ("janus", "vgg16")
    },
    conformal_quantile=2.0,
)


def _prediction(image_id, expert, age=None, sigma=2.0, version="v1", reason="no face"):
    return {
        "image_id": image_id,
        "expert": expert,
        "model_version": version,
        "status": "failed" if age is None else "ok",
        "reason": reason if age is None else None,
        "age_years": age,
        "sigma_years": None if age is None else sigma,
        "distribution": None,
        "valid_mass": None,
    }


def _label(rows, groups, ages=None, calibration=CALIBRATION, **settings):
    images = pl.DataFrame(
        {
            "image_id": list(groups),
            "age_group": list(groups.values()),
            "true_age_years": [None if ages is None else ages.get(name) for name in groups],
        },
        schema={"image_id": pl.String, "age_group": pl.String, "true_age_years": pl.Float32},
    )
    predictions = to_frame(rows, PREDICTIONS)
    labels = label_predictions(predictions, images, calibration, RelabelConfig(**settings))
    return {row["image_id"]: row for row in labels.iter_rows(named=True)}


def _both(image_id, age):
    return [_prediction(image_id, "janus", age), _prediction(image_id, "vgg16", age)]


def test_decisions():
    groups = {"in": "20-29", "edge": "30-39", "out": "40-49", "old": "70-120", "new": None}
    rows = [row for name in groups for row in _both(name, 95.0 if name == "old" else 26.5)]
    labels = _label(rows, groups)  # intervals are 22.5 to 30.5
    decisions = {name: row["decision"] for name, row in labels.items()}
    assert decisions == {
        "in": "keep", "edge": "keep", "out": "relabel", "old": "keep", "new": "none",
    }  # fmt: skip
    assert labels["out"]["age_group"] == "20-29"
    assert labels["out"]["original_age_group"] == "40-49"
    assert labels["out"]["reason"] == "40-49 lies outside 22.5 to 30.5"
    assert labels["in"]["interval_low_years"] == pytest.approx(22.5)


def test_an_interval_that_only_touches_a_group_from_below_does_not_overlap_it():
    # 26 -+ 4: 30 belongs to 30-39; from above, 22 is not in 20-21, but in 20-29.
    assert _label(_both("a", 26.0), {"a": "30-39"})["a"]["decision"] == "keep"
    assert _label(_both("a", 34.0), {"a": "20-29"})["a"]["decision"] == "relabel"


def test_an_age_that_the_corpus_gives_is_never_replaced():
    label = _label(_both("a", 26.5), {"a": None}, {"a": 60.0})["a"]
    assert label["decision"] == "keep"
    assert label["original_age_group"] == "50-69"
    assert "lies outside" in label["reason"]
    assert _label(_both("a", 26.5), {"a": None}, {"a": 25.0})["a"]["reason"] is None


def test_too_few_answers_give_nulls_and_every_reason():
    rows = [
        _prediction("a", "janus", 30.0),
        _prediction("a", "vgg16", reason="no face found"),
        _prediction("b", "janus", 30.0),
    ]
    labels = _label(rows, {"a": "20-29", "b": "20-29", "c": None})
    for name in "abc":
        assert labels[name]["decision"] == "unlabelled"
        for column in ("age_years", "variance_years2", "interval_low_years", "age_group"):
            assert labels[name][column] is None
    assert labels["a"]["reason"] == "1 experts answered; 2 are needed (vgg16: no face found)"
    assert "no prediction" in labels["b"]["reason"]
    assert labels["a"]["num_experts"] == 1
    assert labels["c"]["num_experts"] == 0
    parts = json.loads(labels["b"]["experts"])
    assert parts["vgg16"]["status"] == "missing"
    assert parts["vgg16"]["weight"] is None
    assert parts["janus"]["age_years"] == 30.0
    alone = _label(rows, {"a": "20-29"}, min_experts=1)["a"]
    assert alone["age_years"] == 30.0


def test_experts_are_matched_by_name_not_by_order_of_rows():
    rows = [_prediction(name, e, age) for name, age in (("a", 10.0), ("b", 70.0))
            for e in ("vgg16", "janus")]  # fmt: skip
    groups = {"b": None, "a": None}
    assert _label(rows, groups) == _label(rows[::-1], groups)
    assert _label(rows, groups)["a"]["age_years"] == pytest.approx(10.0)


def test_every_expert_stands_in_the_label():
    rows = [_prediction("a", "janus", 20.0, 1.0), _prediction("a", "vgg16", 30.0, 3.0)]
    parts = json.loads(_label(rows, {"a": None})["a"]["experts"])
    assert parts["janus"] == {
        "age_years": 20.0, "raw_age_years": 20.0, "sigma_years": 1.0, "raw_sigma_years": 1.0,
        "confidence": 0.0, "weight": 0.9, "status": "ok", "reason": None,
    }  # fmt: skip
    assert parts["vgg16"]["confidence"] == pytest.approx(-1.0986)


def test_other_weights_than_the_calibration_was_fitted_on_are_refused():
    rows = [_prediction("a", "janus", 30.0), _prediction("a", "vgg16", 30.0, version="v2")]
    with pytest.raises(DataError, match=r"vgg16 by version v1.*found \['v2'\]"):
        _label(rows, {"a": None})
    label = _label(rows, {"a": None}, calibration=uncalibrated("few", 0.9))["a"]
    assert label["calibrated"] is False
    assert label["age_years"] == 30.0


def test_an_original_group_that_spreadsheets_made_is_refused():
    with pytest.raises(DataError, match="06-Mar"):
        _label(_both("a", 5.0), {"a": "06-Mar"})


def test_label_version_follows_calibration_models_and_settings():
    first = _label(_both("a", 30.0), {"a": None})["a"]["label_version"]
    other = CALIBRATION.model_copy(update={"tau": 0.7})
    assert _label(_both("a", 31.0), {"a": None})["a"]["label_version"] == first
    assert _label(_both("a", 30.0), {"a": None}, None, other)["a"]["label_version"] != first
    assert _label(_both("a", 30.0), {"a": None}, min_experts=1)["a"]["label_version"] != first


def test_no_images_no_rows():
    assert _label([], {}) == {}
