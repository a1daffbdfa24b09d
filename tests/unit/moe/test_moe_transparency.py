"""Tables, plots and figures that lay the mixture open."""

import csv
import json

import pytest
from moe_simulated import labelled

from agetf_pipeline.core.statistics import Sampling
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.moe.fitting import fit_calibration
from agetf_pipeline.moe.transparency import (
    flat_figures,
    measure_transparency,
    write_transparency,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    data = labelled(220)
    calibration, read = fit_calibration(data, 2, 0.9, 50, 0)
    folder = tmp_path_factory.mktemp("transparency")
    figures, files = write_transparency(folder / "a", data, read, calibration, 0.9, 3, True)
    return data, calibration, read, figures, files, folder


def test_files_are_all_there(written):
    *_, files, folder = written
    assert set(files) == {
        "moe_metrics_csv", "moe_reliability_csv", "moe_error_correlation_csv",
        "moe_comparison_csv", "moe_weights_csv", "moe_transparency_json",
        "moe_reliability_diagram_plot", "moe_intervals_plot", "moe_bias_plot",
        "moe_error_correlation_plot", "moe_comparison_plot", "moe_weights_plot",
    }  # fmt: skip
    assert sorted(files.values()) == sorted((folder / "a").iterdir())
    for path in files.values():
        assert path.stat().st_size > 100
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")


def test_the_same_input_gives_the_same_bytes(written):
    data, calibration, read, figures, files, folder = written
    again, others = write_transparency(folder / "b", data, read, calibration, 0.9, 3, True)
    assert again == figures
    for name, path in files.items():
        assert others[name].read_bytes() == path.read_bytes(), name


def test_figures_are_flat_numbers(written):
    *_, figures, _, _ = written
    for name in (
        "mixture_mae_years", "mixture_mae_years_low", "mixture_mae_years_high", "mixture_nll",
        "mixture_emd_years", "mixture_cs5", "interval_coverage", "interval_width_years",
        "gain_over_best_expert_years", "gain_over_best_expert_years_low",
        "gain_over_equal_mean_years_high", "gain_over_stacking_years", "gain_over_median_years",
        "first_raw_mae_years", "third_corrected_mae_years", "mean_weight_second",
        "conformal_calibration_error", "mixture_calibration_error",
    ):  # fmt: skip
        assert isinstance(figures[name], float), name
    low, high = figures["mixture_mae_years_low"], figures["mixture_mae_years_high"]
    assert low < figures["mixture_mae_years"] < high
    assert figures["mixture_mae_years"] < figures["first_corrected_mae_years"]
    assert sum(figures[f"mean_weight_{name}"] for name in ("first", "second", "third")) == (
        pytest.approx(1.0, abs=1e-5)
    )


def test_tables_say_synthetic_n_and_why_there_is_nothing(written):
    _, calibration, *_, files, _ = written
    everything = json.loads(files["moe_transparency_json"].read_text())
    assert everything["synthetic"] is True
    assert everything["calibration_version"] == calibration.version
    assert everything["num_images"] == 220
    assert everything["experts"] == {"first": "v1", "second": "v1", "third": "v2"}
    rows = everything["moe_metrics"]
    assert all(row["synthetic"] for row in rows)
    assert all(row["reason"] for row in rows if row["value"] is None)
    coverage = {
        row["age_group"]: row for row in rows
        if row["reader"] == "interval" and row["metric"] == "coverage"
    }  # fmt: skip
    assert set(coverage) == {"all", *AGE_GROUPS}
    assert coverage["all"]["n"] <= 220
    assert any("suppressed" in (row["reason"] or "") for row in coverage.values())
    with files["moe_metrics_csv"].open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == len(rows)
    assert {row["reader"] for row in table} >= {"first", "second", "third", "mixture", "interval"}
    pairs = everything["moe_error_correlation"]
    assert [(row["first"], row["second"]) for row in pairs] == [
        ("first", "second"), ("first", "third"), ("second", "third"),
    ]  # fmt: skip
    verdicts = {
        row["other"]: row["verdict"] for row in everything["moe_comparison"]
        if row["metric"] == "gain_years" and row["age_group"] == "all"
    }  # fmt: skip
    assert set(verdicts) == {
        "equal_mean", "median", "stacking", "best_expert", "first", "second", "third",
    }  # fmt: skip
    assert set(verdicts.values()) <= {"better", "worse", "no difference shown"}


def test_few_images_give_nulls_not_numbers(tmp_path):
    data = labelled(25)
    calibration, read = fit_calibration(data, 2, 0.9, 10, 0)
    figures, files = write_transparency(tmp_path, data, read, calibration, 0.9, 0, False)
    assert figures["mixture_mae_years"] is None
    assert figures["lowest_group_coverage"] is None
    assert "gain_over_best_expert_years" not in figures
    everything = json.loads(files["moe_transparency_json"].read_text())
    assert {row["reason"] for row in everything["moe_metrics"]} == {
        f"suppressed: n = {row['n']} is below 30" for row in everything["moe_metrics"]
    }
    assert not everything["synthetic"]


def test_an_expert_that_never_answered_does_not_break_it(tmp_path):
    data = labelled(120)
    data.ok_NE[:, 2] = False
    calibration, read = fit_calibration(data, 2, 0.9, 50, 0)
    figures, _ = write_transparency(tmp_path, data, read, calibration, 0.9, 0, True)
    assert figures["third_corrected_mae_years"] is None
    assert figures["mean_weight_third"] == 0.0
    assert figures["gain_over_best_expert_years"] is not None


def test_another_seed_moves_intervals_alone(written):
    data, _, read, *_ = written
    first, second = (
        flat_figures(measure_transparency(data, read, 0.9, Sampling(seed=seed)), data.names)
        for seed in (0, 1)
    )
    assert first["mixture_mae_years"] == second["mixture_mae_years"]
    assert first["mixture_mae_years_low"] != second["mixture_mae_years_low"]
