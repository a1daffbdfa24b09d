"""The mixture against simpler ways, on errors with a known covariance."""

import numpy as np
import pytest
from moe_simulated import experts, reading

from agetf_pipeline.core.statistics import Measure, Sampling
from agetf_pipeline.moe.comparison import (
    compare,
    compare_all,
    crossfitted_stack,
    error_covariance,
    stack,
    verdict,
)

SAMPLING = Sampling(num_bootstrap=200)
# Two experts that nearly share their errors, and one on its own.
CORRELATED = np.array([[25.0, 24.0, 0.0], [24.0, 25.0, 0.0], [0.0, 0.0, 25.0]])


def _mae(age, read):
    return np.nanmean(np.abs(age - read.true_age_N))


def test_stacking_beats_equal_weights_where_errors_are_shared():
    read, _ = experts(3000, CORRELATED)
    equal = read.expert_age_NE.mean(axis=1)
    assert _mae(crossfitted_stack(read), read) < 0.97 * _mae(equal, read)


def test_stacking_weights_by_hand():
    ages = np.array([[10.0, 20.0]])
    assert stack(ages, np.diag([1.0, 4.0]))[0] == pytest.approx(12.0, abs=0.05)  # weights 0.8, 0.2
    # Of two that err alike the worse one counts against: (4 - 2) / 1 and (1 - 2) / 1.
    worse = stack(np.array([[30.0, 40.0]]), np.array([[1.0, 1.5], [1.5, 4.0]]))[0]
    assert worse == pytest.approx(30.0 * 1.25 - 40.0 * 0.25, abs=0.2)


def test_stacking_takes_the_part_of_the_covariance_that_answered():
    ages = np.array([[10.0, 20.0, 90.0], [np.nan, 20.0, np.nan], [np.nan, np.nan, np.nan]])
    covariance = np.diag([1.0, 1.0, np.nan])  # nothing is known of the third
    stacked = stack(ages, covariance)
    assert stacked[:2] == pytest.approx([15.0, 20.0])
    assert np.isnan(stacked[2])


def test_error_covariance_is_that_of_shared_images():
    read, _ = experts(4000, CORRELATED, missing=0.2)
    found = error_covariance(read)
    np.testing.assert_allclose(np.diag(found), 25.0, rtol=0.1)
    assert found[0, 1] == pytest.approx(0.9 * 24, rel=0.1)  # shrunk by a tenth
    assert abs(found[0, 2]) < 1.5
    lonely = error_covariance(reading([30.0, 40.0], [[31.0, np.nan], [39.0, np.nan]],
                                      np.full((2, 2), 3.0)))  # fmt: skip
    assert lonely[0, 0] == 1.0
    assert np.isnan(lonely[1, 1])
    assert lonely[0, 1] == 0.0


def test_a_paired_gain_by_hand():
    truth = np.full(40, 30.0)
    read = reading(truth, np.full((40, 1), 33.0), np.full((40, 1), 3.0))
    other = np.r_[np.full(30, 35.0), np.full(10, np.nan)]
    people = np.array([f"p{n}" for n in range(40)])
    found = compare("other", "", other, read, people, SAMPLING)
    assert found.gain.value == pytest.approx(2.0)
    assert found.gain.n == 30  # only where both have an age
    assert found.mixture_mae.n == 30
    assert found.other_mae.value == pytest.approx(5.0)
    assert found.worst_group_gain.value == pytest.approx(2.0)
    assert found.group_gains["30-39"].value == pytest.approx(2.0)
    assert found.group_gains["0-2"].value is None
    assert verdict(found.gain) == "better"


def test_a_loss_is_reported_like_a_gain():
    read, people = experts(600, np.diag([16.0, 400.0]))
    perfect = compare("truth", "", read.true_age_N, read, people, SAMPLING)
    assert perfect.gain.value < 0
    assert verdict(perfect.gain) == "worse"
    assert verdict(Measure(0.1, -0.1, 0.3)) == "no difference shown"
    assert verdict(Measure(None, reason="too few")) == "not known"


def test_worst_group_gain_compares_each_ones_own_worst_group():
    truth = np.repeat([25.0, 80.0], 40)
    ages = np.c_[truth + np.repeat([1.0, 9.0], 40)]
    read = reading(truth, ages, np.full((80, 1), 3.0))
    people = np.array([f"p{n}" for n in range(80)])
    found = compare("other", "", truth + np.repeat([6.0, 1.0], 40), read, people, SAMPLING)
    assert found.worst_group_gain.value == pytest.approx(6.0 - 9.0)
    assert found.gain.value == pytest.approx((5.0 - 8.0) / 2)


def test_all_comparisons_and_the_best_expert():
    read, people = experts(1500, np.diag([16.0, 36.0, 900.0]), missing=0.1)
    found = {item.name: item for item in compare_all(read, ["a", "b", "c"], people, SAMPLING)}
    assert list(found) == ["equal_mean", "median", "stacking", "best_expert", "a", "b", "c"]
    best = found["best_expert"]
    assert best.expert == "a"
    assert "favours" in best.about
    assert best.gain == found["a"].gain
    assert best.gain.n == int(np.isfinite(read.expert_age_NE[:, 0]).sum())
    assert verdict(best.gain) == "better"
    assert verdict(found["c"].gain) == "better"
    assert found["stacking"].gain.low < 0 < found["stacking"].gain.high  # both are optimal here


def test_the_interval_of_a_gain_holds_the_truth():
    # |N(0, 6)| against |N(0, 3)|: the gain is (6 - 3) sqrt(2/pi).
    truth_of_gain = 3 * np.sqrt(2 / np.pi)
    inside = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth = np.full(400, 50.0)
        read = reading(truth, (truth + rng.normal(0, 3, 400))[:, None], np.full((400, 1), 3.0))
        people = np.array([f"p{n // 4}" for n in range(400)])
        gain = compare("other", "", truth + rng.normal(0, 6, 400), read, people, SAMPLING).gain
        inside += gain.low <= truth_of_gain <= gain.high
    assert inside >= 17


def test_stacking_may_take_a_covariance_from_elsewhere():
    read, people = experts(300, CORRELATED)
    given = compare_all(read, ["a", "b", "c"], people, SAMPLING, np.diag([1.0, 1e9, 1e9]))
    stacked = next(item for item in given if item.name == "stacking")
    first = next(item for item in given if item.name == "a")
    assert stacked.gain.value == pytest.approx(first.gain.value, abs=0.01)
