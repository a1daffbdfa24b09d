"""Metric code against known answers: each figure where the truth is known beforehand.

Simulations have fixed seeds: what they show is the same on every run. Their tolerances come from
the binomial or standard error of as many repetitions.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from agetf_pipeline.core.statistics import (
    Sampling,
    emd_years,
    emd_years_of_histograms,
    measure,
    measure_mean,
    slope,
    spearman,
    threshold_at_far,
)
from agetf_pipeline.evaluation.distances import frechet_distance, measure_kid
from agetf_pipeline.evaluation.kernel_distance import kernel_sums, polynomial_kernel, squared_mmd

FAR = 1e-3


# --- the threshold of verification ---------------------------------------------------------------


def test_far_threshold_is_the_quantile_of_the_impostors():
    """Of a million normal scores it is the normal's quantile, within its standard error."""
    num = 1_000_000
    threshold = threshold_at_far(np.random.default_rng(0).normal(size=num), FAR)
    true = stats.norm.isf(FAR)
    standard_error = math.sqrt(FAR * (1 - FAR) / num) / stats.norm.pdf(true)
    assert abs(threshold - true) < 3 * standard_error


def test_far_of_fresh_impostors_is_the_one_asked_for():
    """On average over 500 embedders with 20,000 pairs each, within 3 binomial errors.

    A threshold one accepted pair too low or too high is 5 % off, which they do not leave room for.
    """
    num, repetitions = 20_000, 500
    thresholds = [
        threshold_at_far(np.random.default_rng(seed).normal(size=num), FAR)
        for seed in range(repetitions)
    ]
    realised = stats.norm.sf(thresholds)  # what a fresh impostor's chances are
    assert realised.mean() == pytest.approx(FAR, rel=3 / math.sqrt(FAR * num * repetitions))
    assert realised.std() == pytest.approx(FAR / math.sqrt(FAR * num), rel=0.2)
    fresh = np.random.default_rng(1000).normal(size=1_000_000)
    # Of one threshold: its own error, of 20 accepted pairs, and that of the fresh scores.
    tolerance = 3 * math.sqrt(1 / (FAR * num) + 1 / (FAR * len(fresh)))
    assert (fresh >= thresholds[0]).mean() == pytest.approx(FAR, rel=tolerance)


def test_far_of_a_single_allowed_pair_is_not_twice_the_one_asked_for():
    """The fewest pairs that do: 1,000. Fresh impostors pass once in 1,001 times."""
    thresholds = [
        threshold_at_far(np.random.default_rng(seed).normal(size=1000), FAR) for seed in range(2000)
    ]
    realised = stats.norm.sf(thresholds)
    assert realised.mean() == pytest.approx(1 / 1001, rel=3 / math.sqrt(2000))


@pytest.mark.parametrize("decimals", [1, 2])
def test_far_with_ties_is_never_above_the_one_asked_for(decimals):
    """Scores in coarse steps: the whole step at the border is refused, not half of it accepted."""
    scores = np.random.default_rng(1).normal(size=50_000).round(decimals)
    threshold = threshold_at_far(scores, FAR)
    accepted = (scores >= threshold).mean()
    assert accepted <= FAR
    next_lower = scores[scores < threshold].max()
    assert (scores >= next_lower).mean() > FAR  # and one step lower would accept too many


def test_far_of_too_few_pairs_is_not_defined():
    scores = np.random.default_rng(2).normal(size=1000)
    assert math.isnan(threshold_at_far(scores[:999], FAR))
    assert (scores >= threshold_at_far(scores, FAR)).sum() == 1


# --- the identity-clustered bootstrap ------------------------------------------------------------

REPETITIONS = 2000
Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


def coverage(draw: Draw, truth: float) -> float:
    """Return how often the nominal 95 % interval of a mean holds the truth."""
    held = 0
    for seed in range(REPETITIONS):
        values, identities = draw(np.random.default_rng(seed))
        found = measure_mean(values, identities, Sampling(300, 0.95, 10, seed))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    return held / REPETITIONS


def people(rng: np.random.Generator, unequal: bool, num: int = 30) -> np.ndarray:
    return np.repeat(np.arange(num), rng.choice([1, 1, 2, 3, 6, 10], num) if unequal else 4)


def errors_years(rng: np.random.Generator, identities: np.ndarray) -> np.ndarray:
    """Errors with mean 2: persons differ by 3 years, photographs of one person by 2."""
    of_person = rng.normal(0, 3, identities.max() + 1)
    return 2 + of_person[identities] + rng.normal(0, 2, len(identities))


@pytest.mark.parametrize("unequal", [False, True], ids=["4_images_each", "1_to_10_images"])
def test_bootstrap_of_a_mean_covers_it_as_often_as_it_says(unequal):
    """30 people, nominal 95 %: 93 to 97 % of 2,000 intervals hold the true mean."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        identities = people(rng, unequal)
        return errors_years(rng, identities), identities

    assert 0.93 <= coverage(draw, 2.0) <= 0.97


def test_bootstrap_of_skewed_absolute_errors_covers_their_mean():
    """Gamma-distributed errors of people with 1 to 10 images: the hardest that we report."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        identities = people(rng, unequal=True)
        of_person = rng.gamma(3, 1, identities.max() + 1)
        return of_person[identities] * rng.gamma(4, 0.25, len(identities)), identities

    assert 0.93 <= coverage(draw, 3.0) <= 0.97


def test_bootstrap_of_a_paired_difference_covers_it_as_often_as_it_says():
    """Two models on the same faces, the second better by 0.5 years: 93 to 97 % of 2,000.

    Each model's own error varies far more from person to person than their difference does.
    """

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        identities = people(rng, unequal=False, num=40)
        first = errors_years(rng, identities)
        second = first - 0.5 + rng.normal(0, 0.4, 40)[identities] + rng.normal(0, 1, len(first))
        return second - first, identities

    assert 0.93 <= coverage(draw, -0.5) <= 0.97


def test_single_images_drawn_instead_of_people_would_not_cover():
    """What makes the tests above sharp: the same data with every image as its own person."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        identities = people(rng, unequal=False)
        return errors_years(rng, identities), np.arange(len(identities))

    assert coverage(draw, 2.0) < 0.85


def test_bootstrap_of_any_statistic_is_that_of_the_mean():
    """Statistics without a fast way, such as rank correlations, are drawn the same way."""
    rng = np.random.default_rng(0)
    identities = people(rng, unequal=True)
    values = errors_years(rng, identities)
    fast = measure_mean(values, identities, Sampling())
    slow = measure(lambda column: float(column.mean()), [values], identities, Sampling())
    assert (slow.value, slow.low, slow.high) == pytest.approx((fast.value, fast.low, fast.high))


# --- KID -----------------------------------------------------------------------------------------

DIM = 32


def test_kid_is_that_of_torchmetrics_where_everybody_has_one_image():
    x, y = np.random.default_rng(0).normal(size=(2, 60, 2048)) * 0.5
    expected = float(poly_mmd(torch.from_numpy(y), torch.from_numpy(x + 0.05)))
    found = measure_kid(x + 0.05, np.arange(60), y, np.arange(100, 160), Sampling(20))
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert found.value > 0


def null_distribution(repetitions: int, images_each: int) -> tuple[np.ndarray, ...]:
    """Return values, lower and upper ends of KID of two samples of one distribution."""
    names = np.repeat(np.arange(40), images_each)
    found = []
    for seed in range(repetitions):
        x, y = (both_alike(np.random.default_rng([seed, side]), names) for side in (0, 1))
        kid = measure_kid(x, names, y, names + 100, Sampling(200, seed=seed))
        found.append((kid.value, kid.low, kid.high))
    values, low, high = np.array(found).T
    return values, low, high


def both_alike(rng: np.random.Generator, names: np.ndarray) -> np.ndarray:
    """Features of people, of variance 1, those of one person alike."""
    of_person = rng.normal(size=(names.max() + 1, DIM))[names]
    return 0.8 * of_person + 0.6 * rng.normal(size=(len(names), DIM))


@pytest.mark.parametrize("images_each", [1, 3])
def test_kid_of_one_distribution_lies_around_0(images_each):
    """400 pairs of samples: the mean is 0 within 3 standard errors, intervals hold 0 as they say.

    Their width is that of the null distribution: that of a plain bootstrap would be 1.7 times it.
    """
    values, low, high = null_distribution(400, images_each)
    standard_error = values.std() / math.sqrt(len(values))
    assert abs(values.mean()) < 3 * standard_error
    assert 0.35 < (values > 0).mean() < 0.55  # skewed to the right: its median is below its mean
    held = ((low <= 0) & (high >= 0)).mean()
    assert 0.93 <= held <= 0.99
    assert 0.85 < (high - low).mean() / (2 * 1.96 * values.std()) < 1.35


def test_kid_with_images_compared_with_themselves_would_lie_above_0():
    """What makes the test above sharp: with an image's own pair, or its person's, it is biased."""
    names = np.repeat(np.arange(40), 3)
    with_itself, with_its_person = [], []
    for seed in range(100):
        x, y = (both_alike(np.random.default_rng([seed, side]), names) for side in (0, 1))
        xx, yy, xy = polynomial_kernel(x, x), polynomial_kernel(y, y), polynomial_kernel(x, y)
        with_itself.append(xx.mean() + yy.mean() - 2 * xy.mean())
        with_its_person.append(float(poly_mmd(torch.from_numpy(y), torch.from_numpy(x))))
    for values in (with_itself, with_its_person):
        assert np.mean(values) > 5 * np.std(values) / math.sqrt(len(values))


def test_kid_of_shifted_distributions_is_the_closed_form():
    """Normal features shifted by s in each of D directions, of which the kernel's means are known.

    With u = x y / D, of independent x and y: E(u + 1)^3 = 1 + 3 E u + 3 E u^2 + E u^3.
    """
    shift = 0.3

    def mean_kernel(a: float, b: float) -> float:
        """Of x ~ N(a, 1) and y ~ N(b, 1) in D directions: moments of a sum of D products."""
        mean = a * b
        second = (a**2 + 1) * (b**2 + 1)
        third = (a**3 + 3 * a) * (b**3 + 3 * b)
        variance = second - mean**2
        skew = third - 3 * mean * second + 2 * mean**3
        u2 = mean**2 + variance / DIM
        u3 = mean**3 + 3 * mean * variance / DIM + skew / DIM**2
        return 1 + 3 * mean + 3 * u2 + u3

    true = mean_kernel(shift, shift) + mean_kernel(0, 0) - 2 * mean_kernel(shift, 0)
    names = np.arange(100)
    found = []
    for seed in range(200):
        x, y = np.random.default_rng(seed).normal(size=(2, 100, DIM))
        kid = measure_kid(x + shift, names, y, names + 100, Sampling(200, seed=seed))
        found.append((kid.value, kid.low, kid.high))
    values, low, high = np.array(found).T
    assert values.mean() == pytest.approx(true, abs=3 * values.std() / math.sqrt(200))
    assert (low > 0).mean() > 0.95  # and no such shift is overlooked
    assert 0.90 <= ((low <= true) & (true <= high)).mean() <= 0.99


def test_kid_counts_people_once_who_are_on_both_sides():
    """Renderings of people beside photographs of the same people: still unbiased."""
    names = np.arange(50)
    values = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        of_person = 0.8 * rng.normal(size=(50, DIM))
        x, y = (of_person + 0.6 * rng.normal(size=(50, DIM)) for _ in range(2))
        values.append(squared_mmd(kernel_sums(x, names, y, names)))
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(300)


# --- FID -----------------------------------------------------------------------------------------


class Features(torch.nn.Module):
    """Lets torchmetrics take features for images."""

    num_features = 16

    def forward(self, features_ND: torch.Tensor) -> torch.Tensor:
        return features_ND


@pytest.mark.parametrize(("num_real", "num_generated"), [(200, 150), (12, 9)])
def test_fid_is_that_of_torchmetrics_on_the_same_features(num_real, num_generated):
    """With more images than features, and with fewer, where covariances are singular."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(num_real, 16)) @ rng.normal(size=(16, 16))
    generated = rng.normal(size=(num_generated, 16)) @ rng.normal(size=(16, 16)) + 0.3
    reference = FrechetInceptionDistance(Features()).set_dtype(torch.float64)
    reference.update(torch.from_numpy(real), real=True)
    reference.update(torch.from_numpy(generated), real=False)
    expected = float(reference.compute())
    assert frechet_distance(generated, real) == pytest.approx(expected, rel=1e-5)


def test_fid_of_normal_features_is_the_closed_form():
    """40,000 draws of two normals whose covariances do not commute: within 2 % of the formula."""
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(2, 6, 6))
    means = rng.normal(size=(2, 6))
    first, second = roots @ roots.transpose(0, 2, 1)
    assert np.abs(first @ second - second @ first).max() > 1
    cross = np.real(linalg.sqrtm(first @ second))
    true = ((means[0] - means[1]) ** 2).sum() + np.trace(first + second - 2 * cross)
    a, b = (mean + rng.normal(size=(40_000, 6)) @ root.T
            for mean, root in zip(means, roots, strict=True))  # fmt: skip
    assert frechet_distance(a, b) == pytest.approx(true, rel=0.02)


def test_fid_loses_nothing_with_2048_features_of_few_images():
    """Far fewer images than features: the root is that of the small Gram matrix, exactly."""
    rng = np.random.default_rng(2)
    base = rng.normal(size=(30, 2048))
    # The same centred rows, scaled by 3 and moved by 1: tr((1 - 3)^2 cov) + 2048.
    variance = base.var(axis=0, ddof=1).sum()
    assert frechet_distance(base, 3 * base + 1 - 2 * base.mean(axis=0)) == pytest.approx(
        4 * variance + 2048, rel=1e-10
    )


# --- distributions of ages, ranks and slopes -----------------------------------------------------


def test_emd_of_samples_is_that_of_scipy():
    rng = np.random.default_rng(0)
    for _ in range(50):
        first = rng.choice(101, rng.integers(1, 60)) + rng.choice([0, 0.25])
        second = rng.normal(40, 20, rng.integers(1, 60)).clip(0, 100).round(rng.integers(0, 3))
        expected = stats.wasserstein_distance(first, second)
        assert emd_years(first, second) == pytest.approx(expected, abs=1e-9)
        assert emd_years(second, first) == pytest.approx(expected, abs=1e-9)
    ages = rng.uniform(0, 100, 31)
    assert emd_years(ages + 7, rng.permutation(ages)) == pytest.approx(7)
    assert math.isnan(emd_years(ages, np.empty(0)))


def test_emd_of_histograms_is_that_of_scipy_and_of_their_samples():
    rng = np.random.default_rng(1)
    years = np.arange(101)
    for _ in range(50):
        first, second = rng.poisson(rng.gamma(0.5, 2, (2, 101))) + (years == 30)
        expected = stats.wasserstein_distance(years, years, first, second)
        assert emd_years_of_histograms(first, second) == pytest.approx(expected, abs=1e-9)
        assert emd_years_of_histograms(first / first.sum(), second) == pytest.approx(expected)
        samples = np.repeat(years, first), np.repeat(years, second)
        assert emd_years(*samples) == pytest.approx(expected, abs=1e-9)
    assert emd_years_of_histograms(years == 0, years == 100) == 100
    assert math.isnan(emd_years_of_histograms(first, np.zeros(101)))


def test_spearman_and_slope_are_those_of_scipy():
    """With ties, as target ages have; and where the truth needs no library."""
    rng = np.random.default_rng(2)
    target = np.tile([5.0, 15, 25, 35, 45, 55, 65, 75, 85], 20)
    read = (0.7 * target + rng.normal(0, 15, len(target))).round()
    assert spearman(target, read) == pytest.approx(stats.spearmanr(target, read).statistic)
    assert slope(target, read) == pytest.approx(stats.linregress(target, read).slope)
    assert spearman(target, np.exp(target / 10)) == pytest.approx(1)
    assert slope(target, 3 - 0.5 * target) == pytest.approx(-0.5)
