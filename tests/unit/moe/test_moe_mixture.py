"""The gate and the mixture on numbers that can be worked out by hand."""

import numpy as np
import pytest

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.moe.mixture import gate, mix


def test_inverse_variance_weights_by_default():
    mixture = mix(
        np.array([[20.0, 30.0]]), np.array([[1.0, 3.0]]), np.ones((1, 2), bool), np.zeros(2)
    )
    np.testing.assert_allclose(mixture.weight_NE, [[0.9, 0.1]])
    np.testing.assert_allclose(mixture.age_N, [21.0])
    np.testing.assert_allclose(mixture.within_N, [0.9 * 1 + 0.1 * 9])
    np.testing.assert_allclose(mixture.between_N, [0.9 * 1 + 0.1 * 81])
    np.testing.assert_allclose(mixture.variance_years2, [1.8 + 9.0])
    np.testing.assert_allclose(mixture.sigma_years**2, mixture.variance_years2)


def test_a_masked_expert_takes_nothing_from_the_others():
    age, sigma = np.array([[20.0, np.nan, 30.0]]), np.array([[1.0, np.nan, 3.0]])
    ok = np.array([[True, False, True]])
    three = mix(age, sigma, ok, np.zeros(3))
    two = mix(age[:, [0, 2]], sigma[:, [0, 2]], ok[:, [0, 2]], np.zeros(2))
    np.testing.assert_allclose(three.weight_NE, [[0.9, 0.0, 0.1]])
    np.testing.assert_allclose(three.age_N, two.age_N)
    np.testing.assert_allclose(three.variance_years2, two.variance_years2)
    assert three.num_experts_N.tolist() == [2]


@pytest.mark.parametrize(
    ("age", "sigma"), [(np.inf, 1.0), (40.0, 0.0), (40.0, -1.0), (40.0, np.inf)]
)
def test_a_value_that_cannot_be_is_no_answer(age, sigma):
    mixture = mix(
        np.array([[20.0, 30.0, age]]), np.array([[1.0, 3.0, sigma]]), np.ones((1, 3), bool),
        np.zeros(3),
    )  # fmt: skip
    np.testing.assert_allclose(mixture.weight_NE, [[0.9, 0.1, 0.0]])


def test_too_few_experts_give_no_number():
    age, sigma = np.array([[20.0, 30.0], [20.0, 30.0]]), np.ones((2, 2))
    ok = np.array([[True, False], [False, False]])
    mixture = mix(age, sigma, ok, np.zeros(2), min_experts=2)
    assert np.isnan(mixture.age_N).all()
    assert np.isnan(mixture.variance_years2).all()
    assert np.isnan(mixture.weight_NE).all()
    assert mixture.num_experts_N.tolist() == [1, 0]
    alone = mix(age, sigma, ok, np.zeros(2), min_experts=1)
    np.testing.assert_allclose(alone.age_N, [20.0, np.nan])


def test_a_shared_mu_cancels_and_a_larger_one_costs_weight():
    sigma, ok = np.array([[2.0, 2.0]]), np.ones((1, 2), bool)
    np.testing.assert_allclose(gate(sigma, ok, np.full(2, 3.0), 0.5), [[0.5, 0.5]])
    weight = gate(sigma, ok, np.array([1.0, 0.0]), 0.5)[0]
    np.testing.assert_allclose(weight[1] / weight[0], np.exp(1 / 0.5))


def test_shapes_and_temperature_are_checked():
    one = np.ones((1, 2))
    with pytest.raises(DataError, match="shape"):
        mix(one, one, np.ones((1, 2), bool), np.zeros(3))
    with pytest.raises(DataError, match="temperature"):
        mix(one, one, np.ones((1, 2), bool), np.zeros(2), tau=0.0)
