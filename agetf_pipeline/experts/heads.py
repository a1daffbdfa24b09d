"""Heads and losses of age networks: distributions over ages, regression, and a learned spread.

Shapes: N images, A = 101 ages (0..100), D features.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agetf_pipeline.data.schemas import NUM_AGE_BINS

MIN_SIGMA_YEARS = 0.5
"""Floor of a learned spread: ages are whole years at best, and their bins are a year wide."""


def two_bin_target(ages_years: Tensor) -> Tensor:
    """Return ages as distributions over the two whole years around each.

    Args:
        ages_years: float (N,), clamped to 0..100.

    Returns:
        float32 (N, 101); rows sum to 1 and their expectation is the age.
    """
    age_N = ages_years.float().clamp(0, NUM_AGE_BINS - 1)
    lower_N = age_N.floor().clamp(max=NUM_AGE_BINS - 2)
    fraction_N = (age_N - lower_N)[:, None]
    index_N1 = lower_N.long()[:, None]
    target_NA = age_N.new_zeros(len(age_N), NUM_AGE_BINS)
    target_NA.scatter_(1, index_N1, 1 - fraction_N)
    return target_NA.scatter_(1, index_N1 + 1, fraction_N)


def expectation(logits_NA: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (years) and variance (years squared) of softmax distributions, float (N,)."""
    p_NA = logits_NA.float().softmax(1)
    bins_A = torch.arange(NUM_AGE_BINS, dtype=p_NA.dtype, device=p_NA.device)
    mean_N = p_NA @ bins_A
    variance_N = (p_NA * (bins_A - mean_N[:, None]) ** 2).sum(1)
    return mean_N, variance_N


def mean_variance_loss(
    logits_NA: Tensor, ages_years: Tensor, lambda_mean: float = 0.2, lambda_variance: float = 0.05
) -> Tensor:
    """Softmax cross-entropy, plus the squared error of the mean, plus the variance.

    Args:
        logits_NA: float (N, 101).
        ages_years: float (N,), 0 to 100. A fractional age is shared between its two whole years.
        lambda_mean: Weight of `(mean - age)^2 / 2`.
        lambda_variance: Weight of the variance.

    Returns:
        The mean over the batch, float ().

    Source:
        Pan, Han, Shan, Chen, "Mean-Variance Loss for Deep Age Estimation from a Face", CVPR 2018,
        equations 3 to 7; 0.2 and 0.05 are the weights they use.
    """
    log_p_NA = logits_NA.float().log_softmax(1)
    cross_entropy_N = -(two_bin_target(ages_years) * log_p_NA).sum(1)
    mean_N, variance_N = expectation(logits_NA)
    mean_loss_N = 0.5 * (mean_N - ages_years) ** 2
    loss_N = cross_entropy_N + lambda_mean * mean_loss_N + lambda_variance * variance_N
    return loss_N.mean()


def regression_loss(age_years: Tensor, true_age_years: Tensor, beta_years: float = 2.0) -> Tensor:
    """Smooth L1 in units of ten years: quadratic below `beta_years`, so that crowds matter less.

    Args:
        age_years: float (N,), estimates.
        true_age_years: float (N,).
        beta_years: Where the loss turns linear.

    Returns:
        The mean over the batch, float ().
    """
    return F.smooth_l1_loss(age_years, true_age_years, beta=beta_years) / 10


def gaussian_nll(error_years: Tensor, sigma_years: Tensor) -> Tensor:
    """Mean negative log-likelihood of errors under normal distributions of these spreads.

    Args:
        error_years: float (N,).
        sigma_years: float (N,), > 0.

    Returns:
        float (); for a fixed error its minimum lies at sigma = |error|.
    """
    return (0.5 * (error_years / sigma_years) ** 2 + sigma_years.log()).mean()


class SigmaHead(nn.Module):
    """The spread of a regressor's error, read from its features.

    It hangs beside the network and is trained on detached features: it never changes the ages.
    """

    def __init__(self, num_features: int, initial_years: float = 6.0) -> None:
        super().__init__()
        hidden = max(16, num_features // 4)
        self.norm = nn.LayerNorm(num_features)
        self.fc1 = nn.Linear(num_features, hidden)
        self.fc2 = nn.Linear(hidden, 1)
        nn.init.zeros_(self.fc2.weight)
        # softplus(bias) = initial spread above the floor.
        nn.init.constant_(self.fc2.bias, math.log(math.expm1(initial_years - MIN_SIGMA_YEARS)))

    def forward(self, features_ND: Tensor) -> Tensor:
        """Return the spread in years, float (N,), above `MIN_SIGMA_YEARS`."""
        hidden = F.gelu(self.fc1(self.norm(features_ND)))
        return F.softplus(self.fc2(hidden)[:, 0]) + MIN_SIGMA_YEARS
