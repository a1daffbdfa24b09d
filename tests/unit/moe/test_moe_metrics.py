"""The figures of experts and mixture, on readings whose figures can be worked out by hand."""

import numpy as np
import pytest
from moe_simulated import experts, labelled, reading

from agetf_pipeline.core.statistics import Sampling
from agetf_pipeline.moe.fitting import fit_calibration
from agetf_pipeline.moe.metrics import (
    LEVELS,
    calibration_error,
    error_correlations,
    estimates_of,
    gaussian_estimate,
    groups_of,
    mean_weights,
    measure_estimate,
    measure_intervals,
    mixture_estimate,
    reliabilities,
)

FEW = Sampling(num_bootstrap=100, min_cell=1)


def _everyone(num_images):
    return np.array([f"p{n}" for n in range(num_images)])


def test_figures_of_one_expert_by_hand():
    truth = np.array([20.0, 30.0, 40.0, 50.0])
    age = np.array([22.0, 24.0, 40.0, np.nan])
    estimate = gaussian_estimate("a", "raw", age, np.full(4, 1e-3), truth)
    measures = measure_estimate(estimate, truth, _everyone(4), FEW)
    assert measures["mae_years", "all"].value == pytest.approx(8 / 3)
    assert measures["mae_years", "all"].n == 3  # one did not answer
    assert measures["cs5", "all"].value == pytest.approx(2 / 3)
    assert measures["bias_years", "all"].value == pytest.approx(-4 / 3)
    assert measures["emd_years", "all"].value == pytest.approx(8 / 3, abs=1e-4)  # points
    assert measures["sigma_years", "all"].value == pytest.approx(1e-3)
    assert measures["bias_years", "20-29"].value == pytest.approx(2.0)
    assert measures["bias_years", "30-39"].value == pytest.approx(-6.0)
    assert measures["bias_years", "50-69"].value is None
    assert measures["bias_years", "0-2"].reason == "suppressed: n = 0 is below 1"


def test_likelihood_of_a_known_gaussian():
    estimate = gaussian_estimate(
        "a", "raw", np.array([50.0, 50.0]), np.array([2.0, 2.0]), np.array([50.0, 54.0])
    )
    at_the_mean = np.log(2.0) + 0.5 * np.log(2 * np.pi)
    assert estimate.nll_N == pytest.approx([at_the_mean, at_the_mean + 2.0])
    assert estimate.central_N == pytest.approx([0.0, 0.9545], abs=1e-4)
    # E|X - mean| of a Gaussian is sigma sqrt(2/pi); rounded to years it moves a little.
    assert estimate.emd_N[0] == pytest.approx(2 * np.sqrt(2 / np.pi), abs=0.05)


def test_likelihood_of_a_mixture_is_that_of_its_density():
    read = reading([30.0], [[20.0, 30.0]], [[2.0, 2.0]])
    density = 0.5 * np.exp(-0.5 * 25) / (2 * np.sqrt(2 * np.pi)) + 0.5 / (2 * np.sqrt(2 * np.pi))
    estimate = mixture_estimate(read)
    assert estimate.nll_N == pytest.approx([-np.log(density)])
    assert estimate.central_N == pytest.approx([0.5], abs=1e-6)  # F(30) = 3/4
    assert estimate.emd_N[0] == pytest.approx(0.5 * 10 + 0.5 * 2 * np.sqrt(2 / np.pi), abs=0.05)


def test_a_mixture_of_one_answer_is_that_answer():
    truth = np.array([30.0, 60.0])
    ages = np.array([[28.0, np.nan], [np.nan, np.nan]])
    both = mixture_estimate(reading(truth, ages, np.full((2, 2), 3.0)))
    alone = gaussian_estimate("a", "corrected", ages[:, 0], np.full(2, 3.0), truth)
    for name in ("nll_N", "emd_N", "central_N", "age_N"):
        np.testing.assert_allclose(getattr(both, name), getattr(alone, name), atol=1e-5)
    assert np.isnan(both.nll_N[1])


def test_coverage_and_width_by_hand_and_small_cells_null_with_a_reason():
    truth = np.r_[np.full(30, 25.0), np.full(29, 80.0)]
    ages = np.r_[np.full(27, 25.0), np.full(3, 40.0), np.full(29, 80.0)]
    read = reading(truth, ages[:, None], np.full((59, 1), 5.0))
    measures = measure_intervals(read, _everyone(59), Sampling(num_bootstrap=50))
    assert measures["coverage", "20-29"].value == pytest.approx(0.9)
    assert measures["width_years", "20-29"].value == pytest.approx(20.0)
    assert measures["coverage", "all"].value == pytest.approx(56 / 59)
    suppressed = measures["coverage", "70-120"]
    assert suppressed.value is suppressed.low is suppressed.high is None
    assert suppressed.n == 29
    assert "29 is below 30" in str(suppressed.reason)


def test_honest_gaussians_are_reliable_and_overconfident_ones_are_not():
    read, people = experts(4000, np.diag([25.0]))
    honest = reliabilities(read, [mixture_estimate(read)])
    boastful = reading(read.true_age_N, read.expert_age_NE, read.expert_sigma_NE / 3)
    proud = reliabilities(boastful, [mixture_estimate(boastful)])
    names = [item.reader for item in honest]
    assert names == ["conformal", "mixture"]
    assert [item.reader for item in proud] == ["mixture"]  # one fold: no conformal interval
    for item in honest:
        assert item.levels_L.tolist() == list(LEVELS)
        assert calibration_error(item, Sampling()).value < 0.03
    assert calibration_error(proud[0], Sampling()).value > 0.2
    assert (np.diff(proud[0].coverage_L) >= 0).all()
    assert len(people) == 4000


def test_correlations_are_those_of_the_errors_on_shared_images():
    covariance = np.array([[16.0, 12.0, 0.0], [12.0, 25.0, 0.0], [0.0, 0.0, 9.0]])
    read, people = experts(3000, covariance, missing=0.2)
    found = error_correlations(read, ["a", "b", "c"], people, Sampling(num_bootstrap=60))
    assert set(found) == {("a", "b"), ("a", "c"), ("b", "c")}
    pair = found["a", "b"]
    assert pair.low < 12 / 20 < pair.high  # the interval holds the truth
    assert abs(found["a", "c"].value) < 0.08
    assert pair.n == int(np.isfinite(read.expert_age_NE[:, :2]).all(axis=1).sum())


def test_mean_weights_sum_to_one_and_a_silent_expert_counts_as_nothing():
    truth = np.full(40, 30.0)
    ages = np.column_stack([np.full(40, 30.0), np.r_[np.full(10, 31.0), np.full(30, np.nan)]])
    read = reading(truth, ages, np.full((40, 2), 2.0))
    weights = mean_weights(read, ["a", "b"], _everyone(40), Sampling(num_bootstrap=50))
    assert weights["b", "all"].value == pytest.approx(0.125)
    assert weights["a", "all"].value == pytest.approx(0.875)
    assert weights["a", "0-2"].value is None


def test_every_reader_is_measured_raw_and_corrected():
    data = labelled(200)
    _, read = fit_calibration(data, 2, 0.9, 50, 0)
    estimates = estimates_of(data, read)
    assert [(item.reader, item.kind) for item in estimates] == [
        *((name, kind) for name in data.names for kind in ("raw", "corrected")),
        ("mixture", "mixture"),
    ]
    third = measure_estimate(estimates[4], data.true_age_N, data.identity_N, FEW)
    known = data.ok_NE[:, 2]
    expected = np.abs(data.age_NE[known, 2] - data.true_age_N[known]).mean()
    assert third["mae_years", "all"].value == pytest.approx(expected)
    assert third["mae_years", "all"].n == known.sum()


def test_groups_of_ages():
    ages = np.array([0.0, 2.99, 3.0, 19.999, 20.0, 69.5, 70.0, 110.0])
    assert groups_of(ages).tolist() == [
        "0-2", "0-2", "3-6", "15-19", "20-29", "50-69", "70-120", "70-120",
    ]  # fmt: skip
