"""Readings of images that need no expert: for tests of what is computed from them."""

import numpy as np

from agetf_pipeline.moe.fitting import CalibrationData, CrossFitted
from agetf_pipeline.moe.mixture import mix


def reading(truth, ages, sigmas, fold=None):
    """A `CrossFitted` of inverse-variance weights over the given experts; NaN is no answer."""
    ages, sigmas = np.asarray(ages, float), np.asarray(sigmas, float)
    part = np.isfinite(ages)
    mixture = mix(ages, sigmas, part, np.zeros(ages.shape[1]), min_experts=1)
    truth = np.asarray(truth, float)
    return CrossFitted(
        true_age_N=truth,
        age_N=mixture.age_N,
        sigma_N=mixture.sigma_years,
        low_N=mixture.age_N - 2 * mixture.sigma_years,
        high_N=mixture.age_N + 2 * mixture.sigma_years,
        score_N=np.abs(truth - mixture.age_N) / mixture.sigma_years,
        expert_age_NE=ages,
        expert_sigma_NE=np.where(part, sigmas, np.nan),
        weight_NE=mixture.weight_NE,
        fold_N=np.zeros(len(truth), np.int64) if fold is None else np.asarray(fold),
    )


def experts(num_images, covariance, seed=0, num_folds=5, missing=0.0):
    """Experts whose errors are Gaussian with a given covariance, each sure of its own spread."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(5, 95, num_images)
    errors = rng.multivariate_normal(np.zeros(len(covariance)), covariance, num_images)
    ages = truth[:, None] + errors
    ages[rng.uniform(0, 1, ages.shape) < missing] = np.nan
    sigmas = np.broadcast_to(np.sqrt(np.diag(covariance)), ages.shape)
    people = np.array([f"p{n // 2}" for n in range(num_images)])
    return reading(truth, ages, sigmas, (np.arange(num_images) // 2) % num_folds), people


def labelled(num_images, seed=0, missing=0.1):
    """Labelled images as three biased experts read them, two images a person."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 95, num_images)
    noise = np.array([4.0, 6.0, 9.0])
    ages = truth[:, None] * [0.9, 1.0, 0.8] + [3.0, -2.0, 8.0]
    ages = np.clip(ages + rng.normal(0, 1, ages.shape) * noise, 0, 100)
    return CalibrationData(
        ["first", "second", "third"],
        ["v1", "v1", "v2"],
        ages,
        np.broadcast_to(noise, ages.shape) * np.exp(rng.normal(0, 0.2, ages.shape)),
        rng.uniform(0, 1, ages.shape) >= missing,
        truth,
        np.array([f"p{n // 2}" for n in range(num_images)]),
    )
