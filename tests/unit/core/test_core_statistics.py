import math

import numpy as np
import pytest
from scipy import stats

from agetf_pipeline.core.statistics import (
    Sampling,
    effective_number,
    expanded_tail,
    measure,
    measure_mean,
    order_violation_rate,
    slope,
    spearman,
    threshold_at_far,
)


def test_spearman_equals_scipy_with_ties():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 80).astype(float)
    y = x + rng.normal(size=80)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_spearman_of_a_constant_is_not_defined():
    assert math.isnan(spearman(np.ones(5), np.arange(5.0)))
    assert math.isnan(spearman(np.ones(1), np.ones(1)))


def test_slope_equals_scipy():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 50))
    assert slope(x, y) == pytest.approx(stats.linregress(x, y).slope)


def test_order_violations():
    assert order_violation_rate(np.array([[1.0, 2, 3], [1, 3, 2]])) == pytest.approx(0.25)


def test_interval_of_a_mean_covers_it_as_often_as_it_says():
    # 20 people with 3 images each, images of one person alike: independent images would cover
    # far less often.
    rng = np.random.default_rng(2)
    identities = np.repeat(np.arange(20), 3)
    sampling = Sampling(num_bootstrap=200, level=0.95, min_cell=10)
    covered = []
    for seed in range(600):
        values = np.repeat(rng.normal(size=20), 3) + 0.3 * rng.normal(size=60)
        found = measure_mean(values, identities, Sampling(200, 0.95, 10, seed))
        covered.append(found.low <= 0 <= found.high)
    assert sampling.level - 0.025 < np.mean(covered) < sampling.level + 0.025


def test_general_statistic_agrees_with_the_fast_mean():
    rng = np.random.default_rng(3)
    values, identities = rng.normal(size=90), np.repeat(np.arange(30), 3)
    sampling = Sampling(300, 0.9, 30)
    fast = measure_mean(values, identities, sampling)
    slow = measure(lambda v: float(v.mean()), [values], identities, sampling)
    assert fast.value == pytest.approx(slow.value)
    assert fast.low == pytest.approx(slow.low)
    assert fast.high == pytest.approx(slow.high)
    assert (fast.n, fast.num_identities) == (90, 30)


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(4)
    values = np.repeat(rng.normal(size=30), 10)
    clustered = measure_mean(values, np.repeat(np.arange(30), 10), Sampling())
    independent = measure_mean(values, np.arange(300), Sampling())
    assert clustered.high - clustered.low > 2 * (independent.high - independent.low)


def test_expanded_tail_is_the_nominal_one_for_many_clusters():
    assert expanded_tail(0.95, 100_000) == pytest.approx(0.025, abs=1e-4)
    assert expanded_tail(0.95, 10) < 0.015


def test_small_cells_are_suppressed():
    found = measure_mean(np.ones(29), np.arange(29), Sampling(synthetic=True))
    assert found.value is None
    assert found.low is None
    assert found.n == 29
    assert found.synthetic
    assert "29 is below 30" in found.reason


def test_one_identity_has_a_value_without_an_interval():
    found = measure_mean(np.arange(40.0), np.zeros(40), Sampling())
    assert found.value == pytest.approx(19.5)
    assert found.low is None
    assert "two identities" in found.reason


def test_undefined_statistics_are_null_with_a_reason():
    found = measure(spearman, [np.ones(40), np.arange(40.0)], np.arange(40), Sampling())
    assert found.value is None
    assert found.reason


def test_threshold_on_simulated_scores():
    rng = np.random.default_rng(5)
    scores = rng.normal(size=200_000)
    threshold = threshold_at_far(scores, 1e-3)
    assert threshold == pytest.approx(stats.norm.ppf(0.999), abs=0.05)
    assert (scores >= threshold).sum() == 200


def test_threshold_with_ties_never_accepts_more_than_allowed():
    scores = np.array([0.9] * 5 + [0.1] * 995)
    threshold = threshold_at_far(scores, 3e-3)
    assert (scores >= threshold).mean() <= 3e-3


def test_threshold_needs_enough_pairs():
    assert math.isnan(threshold_at_far(np.zeros(999), 1e-3))


def test_effective_number():
    assert effective_number(np.ones(7)) == 7
    assert effective_number(np.array([1.0, 0.0])) == 1
    assert effective_number(np.array([])) == 0
