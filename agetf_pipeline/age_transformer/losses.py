"""The losses of AgeTransformer training: each a small function of tensors alone.

Each returns a value per item, so that curriculum weights and masks are applied in one place
(`weighted_mean`). Images are -1 to 1. Shapes: N items, A ages, K age bins, C H W.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

AGE_SCALE_YEARS = 10.0


def weighted_mean(
    values_N: Tensor, weights_N: Tensor | None = None, weight_sum: Tensor | None = None
) -> Tensor:
    """Return the mean of items that count by their weights; zero where all weights are zero.

    Args:
        values_N: A value per item.
        weights_N: How much each counts; None: all alike.
        weight_sum: What to divide by, where the items are a part of more; None: their own sum.
    """
    if weights_N is None:
        return values_N.mean()
    if weight_sum is None:
        weight_sum = weights_N.sum()
    return (values_N * weights_N).sum() / weight_sum.clamp(min=1e-6)


def pixel_loss(
    image_NCHW: Tensor, target_NCHW: Tensor, weights_N1HW: Tensor | None = None
) -> Tensor:
    """Return the mean absolute difference, (N,), 0 to 2.

    For reconstruction at the source's own age, for cycles, and for pairs of one subject.

    Args:
        image_NCHW: Renderings.
        target_NCHW: What they should be.
        weights_N1HW: How much each pixel counts; None: all alike.
    """
    return _mean((image_NCHW - target_NCHW).abs(), weights_N1HW)


def edge_loss(
    image_NCHW: Tensor, target_NCHW: Tensor, weights_N1HW: Tensor | None = None
) -> Tensor:
    """Return the mean absolute difference of the first differences in x and y, (N,).

    It keeps wrinkles and hair from being averaged away, which weigh little in `pixel_loss`.
    """
    difference = image_NCHW - target_NCHW
    dx = (difference[..., :, 1:] - difference[..., :, :-1]).abs()
    dy = (difference[..., 1:, :] - difference[..., :-1, :]).abs()
    if weights_N1HW is None:
        return _mean(dx) + _mean(dy)
    return _mean(dx, weights_N1HW[..., :, 1:]) + _mean(dy, weights_N1HW[..., 1:, :])


def structure_loss(
    image_NCHW: Tensor,
    target_NCHW: Tensor,
    weights_N1HW: Tensor | None = None,
    window_px: int = 5,
) -> Tensor:
    """Return 1 - SSIM over square windows, (N,), 0 (equal) to 2.

    Source: Wang et al. 2004, with constants for a range of 2.
    """
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mean_a = F.avg_pool2d(image_NCHW, window_px, 1)
    mean_b = F.avg_pool2d(target_NCHW, window_px, 1)
    var_a = F.avg_pool2d(image_NCHW**2, window_px, 1) - mean_a**2
    var_b = F.avg_pool2d(target_NCHW**2, window_px, 1) - mean_b**2
    covariance = F.avg_pool2d(image_NCHW * target_NCHW, window_px, 1) - mean_a * mean_b
    ssim = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a.clamp(min=0) + var_b.clamp(min=0) + c2)
    )
    inner = None
    if weights_N1HW is not None:
        edge = window_px // 2
        inner = weights_N1HW[..., edge : edge + ssim.shape[-2], edge : edge + ssim.shape[-1]]
    return _mean(1 - ssim, inner)


def head_region(size_px: int, device: torch.device | None = None) -> Tensor:
    """Return the share, (H, W), 0 to 1, to which a pixel of an aligned face lies on the head.

    An ellipse with a soft border: in FFHQ's alignment heads lie in the same place.
    """
    ys = torch.linspace(-1, 1, size_px, device=device)[:, None]
    xs = torch.linspace(-1, 1, size_px, device=device)[None]
    radius_HW = ((xs / 0.72) ** 2 + ((ys + 0.06) / 0.9) ** 2).sqrt()
    return torch.sigmoid((1 - radius_HW) * 16)


def head_weights(
    source_NCHW: Tensor, target_NCHW: Tensor, outside: float = 0.5, softness: float = 0.08
) -> Tensor:
    """Return how much each pixel of a pair of photographs can be compared, (N, 1, H, W), 0 to 1.

    Two photographs of one person differ in place, light and clothes, which a rendering must take
    from its source. The head always counts. What is outside counts in full where the two borders
    are alike, as in a series before one camera, and else by `outside`: long hair turns grey there
    too, always in the same direction, while another background pulls one way as often as the
    other and `preservation_loss` holds against it.

    Args:
        source_NCHW: What is rendered.
        target_NCHW: The same person at the target age.
        outside: Weight of the outside where the borders differ.
        softness: Mean border difference (images are -1 to 1) at which the outside counts by 1/e.
    """
    inside_HW = head_region(source_NCHW.shape[-1], source_NCHW.device)
    outside_HW = (1 - inside_HW) / (1 - inside_HW).sum()
    difference = (source_NCHW - target_NCHW).abs().mean(dim=1)
    border_N = (difference * outside_HW).sum(dim=(1, 2))
    alike_N = torch.exp(-border_N / softness)[:, None, None].clamp(min=outside)
    return (inside_HW + (1 - inside_HW) * alike_N)[:, None]


def preservation_loss(image_NCHW: Tensor, source_NCHW: Tensor) -> Tensor:
    """Return the mean absolute difference to the source outside the head, (N,), 0 to 2."""
    outside_HW = 1 - head_region(image_NCHW.shape[-1], image_NCHW.device)
    return ((image_NCHW - source_NCHW).abs() * outside_HW).mean(dim=(1, 2, 3))


def soft_age_target(ages_N: Tensor, sigmas_N: Tensor, num_bins: int) -> Tensor:
    """Return Gaussians over the age bins 0..num_bins-1, (N, K), rows sum to 1."""
    bins_K = torch.arange(num_bins, device=ages_N.device, dtype=torch.float32)
    scores = -0.5 * ((bins_K - ages_N[:, None]) / sigmas_N[:, None]) ** 2
    return torch.softmax(scores, dim=1)


def expected_age(logits_NK: Tensor) -> Tensor:
    """Return the mean age in years, (N,), of a distribution over age bins given as logits."""
    bins_K = torch.arange(logits_NK.shape[1], device=logits_NK.device, dtype=torch.float32)
    return torch.softmax(logits_NK.float(), dim=1) @ bins_K


def age_loss(logits_NK: Tensor, target_ages_N: Tensor, sigma_years: float = 3.0) -> Tensor:
    """Return how far the age that a frozen regressor reads lies from the one asked for, (N,).

    Huber of the mean in units of ten years, plus half the earth mover's distance (in the same
    units) between the distribution and a Gaussian of `sigma_years`.
    """
    mean_N = expected_age(logits_NK)
    huber_N = F.huber_loss(
        mean_N / AGE_SCALE_YEARS, target_ages_N / AGE_SCALE_YEARS, reduction="none"
    )
    sigmas_N = torch.full_like(target_ages_N, sigma_years)
    target_NK = soft_age_target(target_ages_N, sigmas_N, logits_NK.shape[1])
    cdf_gap = torch.cumsum(torch.softmax(logits_NK.float(), dim=1) - target_NK, dim=1)
    return huber_N + 0.5 * cdf_gap.abs().sum(dim=1) / AGE_SCALE_YEARS


def identity_margin(age_gap_N: Tensor) -> Tensor:
    """Return the similarity that is asked for across an age gap in years: 0.85 falling to 0.45.

    Never 1: one person at 10 and at 80 is not the same picture.
    """
    return 0.85 - 0.4 * (age_gap_N / 80.0).clamp(0, 1)


def identity_loss(embedding_ND: Tensor, source_embedding_ND: Tensor, age_gap_N: Tensor) -> Tensor:
    """Return `max(0, margin(age gap) - cosine)`, (N,), between rendering and source."""
    cosine_N = F.cosine_similarity(embedding_ND, source_embedding_ND, dim=1)
    return (identity_margin(age_gap_N) - cosine_N).clamp(min=0)


def order_loss(read_ages_NA: Tensor, target_ages_NA: Tensor, margin_years: float = 5.0) -> Tensor:
    """Return `softplus((a_k - a_{k+1} + margin) / 2)` over neighbouring target ages, (N,).

    Pairs asked for at ages closer than the margin are held to their own distance instead.
    """
    order = target_ages_NA.argsort(dim=1)
    read, target = read_ages_NA.gather(1, order), target_ages_NA.gather(1, order)
    wanted = (target[:, 1:] - target[:, :-1]).clamp(max=margin_years)
    gaps = F.softplus((read[:, :-1] - read[:, 1:] + wanted) / 2)
    return (gaps * (wanted > 0)).mean(dim=1)


def smoothness_loss(mask_NHW: Tensor, flow_N2HW: Tensor, age_gap_N: Tensor) -> Tensor:
    """Return the total variation of mask and flow, (N,), decaying with the age gap in years."""
    mask_N1HW = mask_NHW[:, None]
    variation = _variation(mask_N1HW) + 10 * _variation(flow_N2HW)
    return variation * torch.exp(-age_gap_N / 20.0)


def generator_loss(fake_logits_N: Tensor) -> Tensor:
    """Return the non-saturating adversarial loss of the generator, (N,)."""
    return F.softplus(-fake_logits_N)


def discriminator_loss(real_logits_N: Tensor, fake_logits_N: Tensor) -> Tensor:
    """Return the logistic loss of the discriminator, (N,)."""
    return F.softplus(-real_logits_N) + F.softplus(fake_logits_N)


def r1_penalty(real_logits_N: Tensor, real_NCHW: Tensor) -> Tensor:
    """Return the squared gradient norm of the logits at real images, (N,). Source: R1, 2018."""
    (gradient,) = torch.autograd.grad(real_logits_N.sum(), real_NCHW, create_graph=True)
    return gradient.pow(2).sum(dim=(1, 2, 3))


def curriculum_weight(variance_N: Tensor, progress: float) -> Tensor:
    """Return `1 / (1 + (sigma / sigma0)^2)`, (N,), with sigma0 rising from 3 to 15 years.

    Args:
        variance_N: Variance of each label, years squared.
        progress: Share of the run that is done, 0 to 1.
    """
    sigma0_years = 3.0 + 12.0 * min(max(progress, 0.0), 1.0)
    return 1.0 / (1.0 + variance_N / sigma0_years**2)


def _mean(values_NCHW: Tensor, weights_N1HW: Tensor | None = None) -> Tensor:
    """Mean over channels and (weighted) pixels, (N,)."""
    values_NHW = values_NCHW.mean(dim=1)
    if weights_N1HW is None:
        return values_NHW.mean(dim=(1, 2))
    weights_NHW = weights_N1HW[:, 0]
    return (values_NHW * weights_NHW).sum(dim=(1, 2)) / weights_NHW.sum(dim=(1, 2))


def _variation(x_NCHW: Tensor) -> Tensor:
    dx = (x_NCHW[..., :, 1:] - x_NCHW[..., :, :-1]).abs().mean(dim=(1, 2, 3))
    dy = (x_NCHW[..., 1:, :] - x_NCHW[..., :-1, :]).abs().mean(dim=(1, 2, 3))
    return dx + dy
