"""How far two sets of images are apart in a feature space: FID, and KID with its interval.

Shapes: N M images, D features, I identities.
"""

import numpy as np

from agetf_pipeline.core.statistics import Measure, Sampling, absent

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
    """Measure KID with its identity-clustered bootstrap interval (to come)."""
    raise NotImplementedError
