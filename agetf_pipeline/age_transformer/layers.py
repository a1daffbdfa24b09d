"""Building blocks of the AgeTransformer.

Shapes: B batch (B x A in the decoder), T tokens, C channels, H W height and width, S style.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def num_groups(channels: int) -> int:
    """Return the number of groups of a group normalisation: 8 channels each where that divides."""
    return math.gcd(channels // 8, channels) or 1


class ResBlock(nn.Module):
    """Pre-normalised residual block: two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups(channels), channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(num_groups(channels), channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return features of the same shape."""
        h_BCHW = self.conv1(F.silu(self.norm1(x_BCHW)))
        return x_BCHW + self.conv2(F.silu(self.norm2(h_BCHW)))


class StyledBlock(nn.Module):
    """Residual block whose normalised features a style scales and shifts (AdaGN)."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups(channels), channels, affine=False)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(num_groups(channels), channels, affine=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(style_dim, 4 * channels)
        # Strong from the start: a weak one lets the model settle on ignoring the age.
        nn.init.normal_(self.modulation.weight, std=style_dim**-0.5)
        nn.init.zeros_(self.modulation.bias)
        with torch.no_grad():
            self.conv2.weight.mul_(0.5)

    def forward(self, x_BCHW: Tensor, style_BS: Tensor) -> Tensor:
        """Return features of the same shape."""
        modulation = self.modulation(style_BS)[:, :, None, None]
        scale1, shift1, scale2, shift2 = modulation.chunk(4, dim=1)
        h_BCHW = self.conv1(F.silu(self.norm1(x_BCHW) * (1 + scale1) + shift1))
        return x_BCHW + self.conv2(F.silu(self.norm2(h_BCHW) * (1 + scale2) + shift2))


class TransformerLayer(nn.Module):
    """Pre-normalised self-attention and MLP."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        B, T, C = x_BTC.shape
        qkv = self.qkv(self.norm1(x_BTC)).view(B, T, 3, self.heads, C // self.heads)
        q_BHTD, k_BHTD, v_BHTD = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD)
        x_BTC = x_BTC + self.out(attended.transpose(1, 2).reshape(B, T, C))
        return x_BTC + self.mlp(self.norm2(x_BTC))


def warp(x_BCHW: Tensor, flow_B2HW: Tensor) -> Tensor:
    """Sample an image along a flow, bilinearly; past the border the border goes on.

    Args:
        x_BCHW: Image, any channels.
        flow_B2HW: Displacement (x, y) of the place that each pixel is taken from, as a share of
            the image's side. Zero returns the image (to rounding).
    """
    _, _, H, W = x_BCHW.shape
    ys = (torch.arange(H, device=x_BCHW.device, dtype=torch.float32) + 0.5) * (2 / H) - 1
    xs = (torch.arange(W, device=x_BCHW.device, dtype=torch.float32) + 0.5) * (2 / W) - 1
    base_HW2 = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1)
    grid_BHW2 = base_HW2 + 2 * flow_B2HW.float().permute(0, 2, 3, 1)
    warped = F.grid_sample(
        x_BCHW.float(), grid_BHW2, mode="bilinear", padding_mode="border", align_corners=False
    )
    return warped.to(x_BCHW.dtype)
