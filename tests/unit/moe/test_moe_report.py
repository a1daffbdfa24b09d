"""Figures of age estimates on numbers that can be worked out by hand."""

import numpy as np
import pytest

from agetf_pipeline.moe.report import (
    age_figures,
    bias_years,
    coverage,
    cs5,
    effective_number,
    mae_years,
)


def test_figures():
    truth = np.array([10.0, 20.0, 30.0, np.nan, 50.0])
    age = np.array([12.0, 14.0, 30.0, 40.0, np.nan])
    figures = age_figures(truth, age, age - 3, age + 3)
    assert figures.num_images == 3
    assert figures.mae_years == pytest.approx(8 / 3)
    assert figures.bias_years == pytest.approx(-4 / 3)
    assert figures.cs5 == pytest.approx(2 / 3)
    assert figures.coverage == pytest.approx(2 / 3)
    assert mae_years(truth, age) == figures.mae_years
    assert cs5(truth, age) == figures.cs5
    assert bias_years(truth, age) == figures.bias_years
    assert coverage(truth, age - 3, age + 3) == figures.coverage


def test_nothing_to_compare_is_none_not_zero():
    nothing = age_figures(np.array([np.nan]), np.array([3.0]))
    assert nothing.num_images == 0
    assert nothing.mae_years is nothing.cs5 is nothing.bias_years is nothing.coverage is None


def test_effective_number():
    assert effective_number(np.ones(7)) == 7
    assert effective_number(np.array([1.0, 0.0])) == 1
    assert effective_number(np.array([])) == 0
