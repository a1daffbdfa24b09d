import numpy as np
import pytest
from scipy.stats import norm

from agetf_pipeline.config.relabel import RelabelConfig
from agetf_pipeline.data.schemas import LABEL_DECISIONS
from agetf_pipeline.moe.calibration import SCORE_LEVELS, Calibration
from agetf_pipeline.moe.decisions import decide, reliability
from agetf_pipeline.moe.mixture import mix

CONFIG = RelabelConfig(
    review_below_reliability=0.4, drop_below_reliability=0.1, review_disagreement_years=15.0
)


def _decide(original="30-39", true_age=None, low=20.0, high=28.0, score=0.8, apart=3.0):
    return decide(original, true_age, low, high, score, apart, CONFIG)


@pytest.mark.parametrize(
    ("changed", "decision", "why"),
    [
        ({"high": 31.0}, "keep", None),
        ({}, "relabel", "lies outside 20.0 to 28.0"),
        ({"score": 0.39}, "review", "reliability is only 0.39"),
        ({"high": 31.0, "score": 0.39}, "keep", None),
        ({"apart": 15.1}, "review", "disagree by 15.1"),
        ({"score": 0.09}, "drop", "reliability 0.09"),
        ({"original": None}, "none", None),
        ({"original": None, "score": 0.0}, "drop", "reliability 0.00"),
        ({"true_age": 60.0, "score": 0.0, "apart": 99.0}, "keep", "the corpus gives the age, 60"),
        ({"true_age": 25.0}, "keep", None),
    ],
)
def test_decisions(changed, decision, why):
    found, reason = _decide(**changed)
    assert found == decision
    assert found in LABEL_DECISIONS
    assert (why is None) == (reason is None)
    assert reason is None or why in reason


def _reliability(ages, sigmas, quantiles=None):
    age_NE, sigma_NE = np.array([ages], float), np.array([sigmas], float)
    mixture = mix(age_NE, sigma_NE, np.isfinite(age_NE), np.zeros(len(ages)))
    calibration = Calibration(calibrated=quantiles is not None, score_quantiles=quantiles)
    return float(reliability(mixture, calibration)[0])


def test_agreeing_experts_are_as_reliable_as_their_sigma():
    assert _reliability([30, 30], [5, 5]) == pytest.approx(2 * norm.cdf(1) - 1)


def test_disagreement_and_spread_both_lower_it():
    assert _reliability([30, 30], [10, 10]) < _reliability([30, 30], [5, 5])
    assert _reliability([20, 40], [5, 5]) < _reliability([28, 32], [5, 5])


def test_the_calibration_says_what_a_sigma_is_worth():
    # Errors half as large as a normal distribution of these sigmas has them.
    quantiles = tuple(norm.ppf(0.5 + np.array(SCORE_LEVELS) / 2) / 2)
    assert _reliability([30, 30], [10, 10], quantiles) == pytest.approx(
        _reliability([30, 30], [5, 5]), abs=0.005
    )


def test_certainty_and_nothing_are_its_ends():
    quantiles = tuple(norm.ppf(0.5 + np.array(SCORE_LEVELS) / 2))
    assert _reliability([30, 30], [0.5, 0.5], quantiles) == 1
    assert _reliability([30, 30], [1e6, 1e6], quantiles) < 1e-4


def test_no_label_no_score():
    assert np.isnan(_reliability([30, np.nan], [5, 5]))
