"""What becomes of an image's original label, and how far the mixture's own can be relied on.

Shapes: N images.
"""

import math

import numpy as np

from agetf_pipeline.config.relabel import RelabelConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.ages import AGE_GROUPS, group_bounds, group_of
from agetf_pipeline.moe.calibration import SCORE_LEVELS, Calibration
from agetf_pipeline.moe.mixture import Mixture

WITHIN_YEARS = 5.0
"""Of the reliability, as of the customary cumulative score CS@5."""


def reliability(mixture: Mixture, calibration: Calibration) -> np.ndarray:
    """Return how probable it is that the mixture's age is within five years of the truth.

    The share of calibration images whose error, in units of their sigma, was at most what five
    years are in units of this image's sigma; without a calibration, that share of a normal
    distribution. A score, so that thresholds can move without anything being computed again.

    Args:
        mixture: The mixture's reading.
        calibration: Its parameters.

    Returns:
        float64 (N,), 0 to 1; NaN where there is no label.
    """
    from scipy.special import ndtr

    allowed_N = WITHIN_YEARS / mixture.sigma_years
    if calibration.score_quantiles is None:
        return 2 * ndtr(allowed_N) - 1
    quantiles = np.array([0.0, *calibration.score_quantiles, 0.0])
    quantiles[-1] = 2 * quantiles[-2] + 1e-9  # where the tail that was not measured ends
    return np.interp(allowed_N, np.maximum.accumulate(quantiles), [0.0, *SCORE_LEVELS, 1.0])


def original_group(image_id: str, group: str | None, true_age: float | None) -> str | None:
    """Return the age group that the corpus gives an image; None where it gives nothing.

    Raises:
        DataError: The group is not one of FFHQ-Aging's.
    """
    if group is None:
        return None if true_age is None else group_of(true_age)
    if group not in AGE_GROUPS:
        raise DataError(
            f"Expected an age group of {AGE_GROUPS}; found {group!r} for image {image_id}. "
            "Correct the corpus's labels (spreadsheets turn 3-6 into a date) and run ingest again."
        )
    return group


def decide(
    original: str | None,
    true_age: float | None,
    low: float,
    high: float,
    score: float,
    disagreement_years: float,
    config: RelabelConfig,
) -> tuple[str, str | None]:
    """Decide on one image that the mixture has labelled.

    Args:
        original: Its original age group.
        true_age: The age that the corpus gives, years.
        low: Lower end of the mixture's interval, years.
        high: Upper end.
        score: The reliability.
        disagreement_years: Root of the variance between the experts.
        config: The thresholds.

    Returns:
        `keep` (the original stands), `relabel` (the mixture's age replaces it), `review` (a person
        should look), `drop` (nobody knows), or `none` (there was no original label); and why.
    """
    if true_age is not None:
        inside = low <= true_age <= high
        return "keep", None if inside else (
            f"the corpus gives the age, {true_age:g}; it lies outside {low:.1f} to {high:.1f}"
        )
    if score < config.drop_below_reliability:
        return "drop", (
            f"reliability {score:.2f}: the mixture itself doubts that it is within "
            f"{WITHIN_YEARS:g} years"
        )
    if disagreement_years > config.review_disagreement_years:
        return "review", f"the experts disagree by {disagreement_years:.1f} years"
    if original is None:
        return "none", None
    lower, upper = group_bounds(original)
    if original == AGE_GROUPS[-1]:
        upper = math.inf  # people get older than the last bin
    if low < upper and high >= lower:
        return "keep", None
    why = f"{original} lies outside {low:.1f} to {high:.1f}"
    if score < config.review_below_reliability:
        return "review", f"{why}, but the reliability is only {score:.2f}"
    return "relabel", why
