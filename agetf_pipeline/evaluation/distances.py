"""How far two sets of images are apart in a feature space: FID, and KID with its interval.

Shapes: N M images, D features, I people.
"""

import numpy as np

from agetf_pipeline.core.statistics import Measure, Sampling, absent
from agetf_pipeline.evaluation.kernel_distance import (
    kernel_sums,
    squared_mmd,
    squared_mmd_interval,
)

MIN_FID_IMAGES = 5000
MAX_KID_IMAGES = 2000


def frechet_distance(features_a_ND: np.ndarray, features_b_ND: np.ndarray) -> float:
    """Return the Fréchet distance of the Gaussians fitted to two sets of features.

    |mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^1/2). With centred features A and B,
    the trace of the root is the sum of the singular values of A B^T / sqrt((N - 1) (M - 1)). No
    root of a covariance is drawn, so nothing is lost where N is below D and they are singular.

    Args:
        features_a_ND: (N, D), two rows or more.
        features_b_ND: (M, D), likewise.

    Source: Heusel et al. 2017, equation 6; unbiased covariances, as in the authors' code.
    """
    a_ND, b_ND = (np.asarray(part, np.float64) for part in (features_a_ND, features_b_ND))
    if min(len(a_ND), len(b_ND)) < 2:
        raise ValueError(
            f"Expected two images or more of each; found {len(a_ND)} and {len(b_ND)}: one image "
            "has no covariance. Supply more."
        )
    shift_D = a_ND.mean(axis=0) - b_ND.mean(axis=0)
    a_ND, b_ND = ((part - part.mean(axis=0)) / np.sqrt(len(part) - 1) for part in (a_ND, b_ND))
    total_variance = (a_ND**2).sum() + (b_ND**2).sum()
    roots = np.linalg.svd(_short(a_ND) @ _short(b_ND).T, compute_uv=False)
    return float(shift_D @ shift_D + total_variance - 2 * roots.sum())


def _short(rows_ND: np.ndarray) -> np.ndarray:
    """Return at most D rows with the same Gram matrix over features."""
    long = len(rows_ND) > rows_ND.shape[1]
    return np.asarray(np.linalg.qr(rows_ND, mode="r")) if long else rows_ND


def measure_fid(
    generated_ND: np.ndarray,
    real_ND: np.ndarray,
    sampling: Sampling,
    min_images: int = MIN_FID_IMAGES,
) -> Measure:
    """Measure FID.

    Args:
        generated_ND: Features of generated images (N, D).
        real_ND: Features of real images (M, D).
        sampling: Only its word `synthetic` counts.
        min_images: Below as many of either there is no figure.

    Returns:
        FID, without an interval; n counts generated images.
    """
    n, m = len(generated_ND), len(real_ND)
    if min(n, m) < min_images:
        reason = (
            f"FID needs {min_images} images of either kind, below which its bias is larger than "
            f"what it shows; found {n} generated and {m} real ones: KID is for so few"
        )
        return absent(reason, "", n, sampling.synthetic)
    # FID falls as images grow in number, and a resample holds fewer different ones: its FID lies
    # above the value, which a bootstrap interval therefore would not hold.
    reason = "no interval: FID of a resample is biased upwards, by its fewer different images"
    value = frechet_distance(generated_ND, real_ND)
    return Measure(value, n=n, synthetic=sampling.synthetic, reason=reason)


def measure_kid(
    generated_ND: np.ndarray,
    generated_identities: np.ndarray,
    real_ND: np.ndarray,
    real_identities: np.ndarray,
    sampling: Sampling,
) -> Measure:
    """Measure KID, with an interval by drawing people.

    The value is the unbiased squared MMD of the polynomial kernel (x y / D + 1)^3 over all pairs of
    two people; pairs of images of one person, who is no second draw from anything, are left out.
    Where every image is of somebody else this is torchmetrics' `poly_mmd` in float64.

    Of more than `MAX_KID_IMAGES` of a kind so many are drawn by the seed, and the note says so.

    Args:
        generated_ND: Features of generated images (N, D).
        generated_identities: Whom each shows (N,).
        real_ND: Features of real images (M, D).
        real_identities: Whom each shows (M,), by the same names.
        sampling: Resamples, level, smallest number of either kind, and seed.

    Returns:
        KID, which may be below zero; n counts the generated images that were used. None with the
        reason where there are too few images, or images of one person only.

    Source: Binkowski et al. 2018, "Demystifying MMD GANs"; Gretton et al. 2012, lemma 6.
    """
    n, m = len(generated_ND), len(real_ND)
    if min(n, m) < sampling.min_cell:
        reason = f"suppressed: n = {n} generated, {m} real; one is below {sampling.min_cell}"
        return absent(reason, "", n, sampling.synthetic)
    rng = np.random.default_rng(sampling.seed)
    generated_ND, generated_identities = _drawn(generated_ND, generated_identities, rng)
    real_ND, real_identities = _drawn(real_ND, real_identities, rng)
    sums = kernel_sums(generated_ND, generated_identities, real_ND, real_identities)
    num_people = [int((counts > 0).sum()) for counts in (sums.n_I, sums.m_I)]
    if min(num_people) < 2:
        reason = (
            f"KID needs two people or more of either kind; found {num_people[0]} in generated and "
            f"{num_people[1]} in real images"
        )
        return absent(reason, "", n, sampling.synthetic)
    value = squared_mmd(sums)
    low, high = squared_mmd_interval(sums, sampling, rng)
    used = len(generated_ND)
    found = Measure(value, low, high, used, num_people[0], synthetic=sampling.synthetic)
    if (used, len(real_ND)) == (n, m):
        return found
    return found.noted(f"{used} of {n} generated and {len(real_ND)} of {m} real images, drawn")


def _drawn(
    features_ND: np.ndarray, identities: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    if len(features_ND) <= MAX_KID_IMAGES:
        return features_ND, np.asarray(identities)
    rows = np.sort(rng.choice(len(features_ND), MAX_KID_IMAGES, replace=False))
    return features_ND[rows], np.asarray(identities)[rows]
