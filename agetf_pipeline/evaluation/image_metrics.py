"""Image metrics without any network: PSNR and SSIM against a reference, and sharpness."""

import numpy as np


def psnr(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio of each image in dB, float64 (N,).

    Args:
        images: uint8 (N, H, W, 3), RGB.
        references: uint8 (N, H, W, 3). Identical images give the ratio of an error of a hundredth
            of a grey level, 88 dB, so that means stay finite.
    """
    difference = images.astype(np.float64) - references.astype(np.float64)
    mse = np.maximum((difference**2).mean(axis=(1, 2, 3)), 0.01**2)
    return 10 * np.log10(255.0**2 / mse)


def ssim(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return the structural similarity of each image in [-1, 1], float64 (N,).

    Gaussian window of 11 px with sigma 1.5, where it fits inside the image; per channel, averaged.

    Args:
        images: uint8 (N, H, W, 3), RGB, sides of at least 11 px.
        references: uint8 (N, H, W, 3).

    Source: Wang et al., "Image Quality Assessment" (2004), equation 13.
    """
    if not len(images):
        return np.empty(0)
    x, y = (array.astype(np.float64).transpose(0, 3, 1, 2) for array in (images, references))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x = _window_mean(x * x) - mean_x**2
    variance_y = _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(axis=(1, 2, 3))


def _window_mean(x_NCHW: np.ndarray) -> np.ndarray:
    """Weighted mean around each pixel whose 11 x 11 window lies inside the image."""
    from scipy.ndimage import correlate1d

    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    across = correlate1d(correlate1d(x_NCHW, weights, axis=2), weights, axis=3)
    return across[:, :, 5:-5, 5:-5]


def sharpness(images: np.ndarray) -> np.ndarray:
    """Return the standard deviation of the Laplacian of the luma of each image, float64 (N,)."""
    weights = np.array([0.299, 0.587, 0.114])
    luma = images.astype(np.float64) @ weights
    laplacian = (
        luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    ) - 4 * luma[:, 1:-1, 1:-1]
    return laplacian.std(axis=(1, 2))


def resize_bicubic(rgb: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """Resize an image, uint8 (H, W, 3), bicubically: what one gets without any network."""
    from PIL import Image

    if rgb.shape[:2] == (height_px, width_px):
        return rgb
    resized = Image.fromarray(rgb).resize((width_px, height_px), Image.Resampling.BICUBIC)
    return np.asarray(resized)
