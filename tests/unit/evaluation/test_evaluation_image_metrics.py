import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from agetf_pipeline.evaluation.image_metrics import psnr, resize_bicubic, sharpness, ssim


def pictures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 255, 40)
    clean = np.stack([np.add.outer(x, x) / 2] * 3, axis=-1)
    noisy = clean + rng.normal(scale=12, size=clean.shape)
    return clean.round().astype(np.uint8), noisy.clip(0, 255).round().astype(np.uint8)


def test_psnr_equals_scikit_image():
    clean, noisy = pictures(0)
    expected = peak_signal_noise_ratio(clean, noisy, data_range=255)
    assert psnr(noisy[None], clean[None])[0] == pytest.approx(expected)


def test_psnr_of_identical_images_is_finite():
    clean, _ = pictures(0)
    assert psnr(clean[None], clean[None])[0] == pytest.approx(88.13, abs=0.01)


def test_ssim_equals_scikit_image():
    clean, noisy = pictures(1)
    expected = structural_similarity(
        clean, noisy, channel_axis=2, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=255,
    )  # fmt: skip
    assert ssim(noisy[None], clean[None])[0] == pytest.approx(expected, abs=1e-6)
    assert ssim(clean[None], clean[None])[0] == pytest.approx(1.0)


def test_batches_keep_their_order():
    clean, noisy = pictures(2)
    both = ssim(np.stack([noisy, clean]), np.stack([clean, clean]))
    assert both.shape == (2,)
    assert both[0] < both[1]
    assert ssim(np.empty((0, 40, 40, 3), np.uint8), np.empty((0, 40, 40, 3), np.uint8)).size == 0


def test_sharpness_falls_with_blur():
    _, noisy = pictures(3)
    soft = resize_bicubic(resize_bicubic(noisy, 10, 10), 40, 40)
    assert sharpness(soft[None])[0] < 0.3 * sharpness(noisy[None])[0]
