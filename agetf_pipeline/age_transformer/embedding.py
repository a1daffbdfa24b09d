"""The age embedding: continuous, with anchors of its own.

Shapes: N ages, K anchors, S style.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

MAX_AGE_YEARS = 100.0


def anchor_weights(ages_N: Tensor, anchors_K: Tensor) -> Tensor:
    """Return the weights of linear interpolation between anchors, (N, K), rows sum to 1.

    Ages outside the anchors take the nearest one.
    """
    ages_N = ages_N.clamp(anchors_K[0], anchors_K[-1]).contiguous()
    upper_N = torch.searchsorted(anchors_K, ages_N).clamp(1, len(anchors_K) - 1)
    lower_N = upper_N - 1
    share_N = (ages_N - anchors_K[lower_N]) / (anchors_K[upper_N] - anchors_K[lower_N])
    weights_NK = ages_N.new_zeros(ages_N.shape[0], len(anchors_K))
    weights_NK.scatter_(1, lower_N[:, None], (1 - share_N)[:, None])
    return weights_NK.scatter_add(1, upper_N[:, None], share_N[:, None])


class AgeEmbedding(nn.Module):
    """`MLP(Fourier(a)) + sum_k tri_k(a) e_k`: any age from 0 to 100 years can be asked for."""

    frequencies: Tensor
    anchors_K: Tensor

    def __init__(self, anchors_years: Sequence[float], dim: int, num_frequencies: int) -> None:
        super().__init__()
        # Half periods of 100 years and less: the embedding is continuous, and does not wrap round.
        frequencies = math.pi * torch.arange(1, num_frequencies + 1) / MAX_AGE_YEARS
        self.register_buffer("frequencies", frequencies)
        self.register_buffer("anchors_K", torch.tensor(anchors_years, dtype=torch.float32))
        self.anchor_table = nn.Parameter(torch.randn(len(anchors_years), dim) * 0.5)
        self.mlp = nn.Sequential(
            nn.Linear(2 * num_frequencies + 1, dim), nn.SiLU(), nn.Linear(dim, dim)
        )

    def forward(self, ages_N: Tensor) -> Tensor:
        """Return the embeddings, (N, S), of ages in years, (N,)."""
        ages_N = ages_N.float()
        phase = ages_N[:, None] * self.frequencies
        features = [torch.sin(phase), torch.cos(phase), ages_N[:, None] / MAX_AGE_YEARS * 2 - 1]
        anchors = anchor_weights(ages_N, self.anchors_K) @ self.anchor_table
        return self.mlp(torch.cat(features, dim=1)) + anchors
