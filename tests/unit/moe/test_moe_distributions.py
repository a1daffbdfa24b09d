"""Distributions over ages and age groups on numbers that can be worked out by hand."""

import numpy as np
import pytest
from scipy.stats import norm

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.ages import AGE_GROUPS, group_of
from agetf_pipeline.moe import distributions
from agetf_pipeline.moe.distributions import (
    expected_error,
    gaussian_distribution,
    group_probabilities,
    mixture_distribution,
)


def _one_hot(age):
    return np.eye(101)[[age]]


def test_one_expert_is_a_discretised_gaussian():
    mixed = mixture_distribution(
        np.ones((1, 1)), np.array([[40.3]]), np.array([[3.0]]), np.ones((1, 1), bool)
    )
    alone = gaussian_distribution(np.array([40.3]), np.array([3.0]))
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, alone, atol=1e-7)
    expected = norm.cdf(42.5, 40.3, 3) - norm.cdf(41.5, 40.3, 3)
    assert alone[0, 42] == pytest.approx(expected, rel=1e-6)
    assert alone[0] @ np.arange(101) == pytest.approx(40.3, abs=1e-3)


def test_a_gaussian_at_the_edge_is_truncated_and_sums_to_one():
    p = gaussian_distribution(np.array([0.0, 100.0, 50.0]), np.array([8.0, 40.0, 0.3]))
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-12)
    assert p[0].argmax() == 0
    assert p[2].argmax() == 50


def test_the_mixture_is_the_weighted_sum_of_those_that_take_part():
    weight = np.array([[0.25, 0.75, 0.0], [np.nan, np.nan, np.nan], [0.0, 1.0, 0.0]])
    age = np.array([[10.0, 60.0, np.nan], [30.0, 30.0, 30.0], [np.nan, 60.0, 20.0]])
    sigma = np.array([[2.0, 5.0, np.nan], [1.0, 1.0, 1.0], [np.nan, 5.0, 1.0]])
    part = np.array([[True, True, False], [True, False, False], [False, True, True]])
    mixed = mixture_distribution(weight, age, sigma, part)
    first = gaussian_distribution(np.array([10.0]), np.array([2.0]))
    second = gaussian_distribution(np.array([60.0]), np.array([5.0]))
    np.testing.assert_allclose(mixed[:1], 0.25 * first + 0.75 * second, atol=1e-6)
    assert np.isnan(mixed[1]).all()  # no label, no distribution
    np.testing.assert_allclose(mixed[2:], second, atol=1e-6)


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    weight = rng.dirichlet(np.ones(3), 50)
    age, sigma = rng.uniform(0, 100, (50, 3)), rng.uniform(0.5, 20, (50, 3))
    whole = mixture_distribution(weight, age, sigma, np.ones((50, 3), bool))
    monkeypatch.setattr(distributions, "_CHUNK", 7)
    np.testing.assert_array_equal(
        mixture_distribution(weight, age, sigma, np.ones((50, 3), bool)), whole
    )
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, atol=1e-5)


def test_shapes_are_checked():
    with pytest.raises(DataError, match="one shape"):
        mixture_distribution(
            np.ones((2, 2)), np.ones((2, 3)), np.ones((2, 2)), np.ones((2, 2), bool)
        )


@pytest.mark.parametrize("age", [0, 2, 5, 12, 25, 69, 85, 100])
def test_a_point_inside_a_group_is_all_in_it(age):
    groups = group_probabilities(_one_hot(age))
    assert AGE_GROUPS[groups.argmax()] == group_of(age)
    assert groups.max() == pytest.approx(1.0)


def test_the_bin_at_a_bound_belongs_half_to_the_group_below():
    groups = group_probabilities(_one_hot(3))[0]
    assert groups[:3].tolist() == [0.5, 0.5, 0.0]


def test_the_likeliest_group_is_the_group_of_a_sharp_age():
    ages = np.array([2.8, 3.2, 6.9, 19.7, 69.8, 70.2])
    groups = group_probabilities(gaussian_distribution(ages, np.full(6, 0.3)))
    np.testing.assert_allclose(groups.sum(axis=1), 1.0, atol=1e-6)
    assert [AGE_GROUPS[g] for g in groups.argmax(axis=1)] == [group_of(age) for age in ages]


def test_expected_error_of_points_and_of_a_spread():
    assert expected_error(_one_hot(30), np.array([37.5])).tolist() == [7.5]
    half = 0.5 * _one_hot(20) + 0.5 * _one_hot(40)
    assert expected_error(half, np.array([30.0])).tolist() == [10.0]  # though its mean is right
    assert expected_error(half, np.array([50.0])).tolist() == [20.0]
