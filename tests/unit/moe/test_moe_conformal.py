"""Intervals that hold in every true age group, on readings that regress towards the mean."""

import numpy as np
import pytest

from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.moe.calibration import Calibration, GroupConformal, interval
from agetf_pipeline.moe.conformal import (
    MIN_GROUP_SCORES,
    Scored,
    conformal_quantile,
    fit_group_quantiles,
    group_interval,
    lowest_group_level,
)
from agetf_pipeline.moe.metrics import groups_of


def _regressing(num_images, seed):
    """Ages pulled a fifth of the way to 35, with noise that grows with age: a sigma that lies."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([1.5, 5, 8, 12, 17, 25, 35, 45, 60, 80], num_images)
    truth = np.maximum(truth + rng.uniform(-1.5, 1.4, num_images), 0)
    age = 0.8 * truth + 7 + rng.normal(0, 1, num_images) * (1.5 + 0.06 * truth)
    age = np.clip(age, 0, 100)
    return Scored(truth, age, 2.0 + 0.08 * age, np.arange(num_images) % 5)


def _coverage(scored, low, high):
    inside = (scored.true_age_N >= low) & (scored.true_age_N <= high)
    groups = groups_of(scored.true_age_N)
    return inside.mean(), {name: inside[groups == name].mean() for name in AGE_GROUPS}


def test_every_true_group_is_covered_where_one_quantile_leaves_groups_out():
    fitting, testing = _regressing(2500, 0), _regressing(6000, 1)
    single = conformal_quantile(fitting.scores(), 0.9)
    plain = Calibration(calibrated=True, conformal_quantile=single)
    overall, groups = _coverage(testing, *interval(testing.age_N, testing.sigma_N, plain))
    assert overall == pytest.approx(0.9, abs=0.02)
    assert min(groups.values()) < 0.75

    level, quantiles = fit_group_quantiles(fitting, 0.9)
    overall, groups = _coverage(testing, *group_interval(testing.age_N, testing.sigma_N, quantiles))
    assert overall == pytest.approx(0.9, abs=0.02)
    assert min(groups.values()) > 0.83
    assert lowest_group_level(0.9) <= level <= 0.95
    assert lowest_group_level(0.9) == pytest.approx(0.85)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_other_levels_are_held_too(level):
    fitting, testing = _regressing(2500, 2), _regressing(6000, 3)
    _, quantiles = fit_group_quantiles(fitting, level)
    overall, _ = _coverage(testing, *group_interval(testing.age_N, testing.sigma_N, quantiles))
    assert overall == pytest.approx(level, abs=0.03)


def test_the_hull_by_hand():
    quantiles = np.ones(len(AGE_GROUPS))
    quantiles[AGE_GROUPS.index("0-2")] = 3.0
    quantiles[AGE_GROUPS.index("10-14")] = 0.1
    age, sigma = np.array([6.0, 6.0, 95.0]), np.array([2.0, 0.5, 30.0])
    low, high = group_interval(age, sigma, quantiles)
    # 3-6 and 7-9 reach 4 to 8; the ages 0 to 2 are within 6 of 6, and join.
    assert (low[0], high[0]) == (0.0, 8.0)
    assert (low[1], high[1]) == (5.5, 6.5)
    assert (low[2], high[2]) == (65.0, 120.0)


def test_an_age_without_any_group_in_reach_is_its_own_interval():
    low, high = group_interval(
        np.array([30.0, np.nan]), np.array([2.0, 2.0]), np.zeros(len(AGE_GROUPS))
    )
    assert (low[0], high[0]) == (30.0, 30.0)
    assert np.isnan(low[1])
    assert np.isnan(high[1])


def test_a_small_group_borrows_from_its_neighbours():
    scored = _regressing(600, 4)
    few = np.flatnonzero(groups_of(scored.true_age_N) != "0-2")
    few = np.r_[few, np.flatnonzero(groups_of(scored.true_age_N) == "0-2")[:3]]
    mask = np.zeros(600, bool)
    mask[few] = True
    level, quantiles = fit_group_quantiles(scored.take(mask), 0.9)
    assert np.isfinite(quantiles).all()
    assert level > 0
    assert (groups_of(scored.take(mask).true_age_N) == "0-2").sum() < MIN_GROUP_SCORES


def test_too_few_images_or_one_fold_have_one_quantile_for_all():
    scored = _regressing(79, 5)
    assert fit_group_quantiles(scored, 0.9) is None
    one_fold = _regressing(400, 5)
    one_fold = Scored(one_fold.true_age_N, one_fold.age_N, one_fold.sigma_N, np.zeros(400, int))
    assert fit_group_quantiles(one_fold, 0.9) is None


def test_images_without_a_label_are_left_out():
    scored = _regressing(500, 6)
    level, quantiles = fit_group_quantiles(scored, 0.9)
    longer = Scored(
        np.r_[scored.true_age_N, 30.0], np.r_[scored.age_N, np.nan], np.r_[scored.sigma_N, np.nan],
        np.r_[scored.fold_N, 0],
    )  # fmt: skip
    again = fit_group_quantiles(longer, 0.9)
    assert again[0] == level
    np.testing.assert_array_equal(again[1], quantiles)


def test_intervals_use_the_quantiles_per_group_where_there_are_any():
    quantiles = tuple(float(n) for n in range(1, 11))
    calibration = Calibration(
        calibrated=True, conformal_quantile=1.0,
        group_conformal=GroupConformal(level=0.88, quantiles=quantiles),
    )  # fmt: skip
    low, high = interval(np.array([25.0]), np.array([0.5]), calibration)
    assert (low[0], high[0]) == (22.0, 28.0)
    with pytest.raises(ValueError, match="one per group"):
        GroupConformal(level=0.9, quantiles=(1.0,))
