"""The discriminator: a ResNet that also judges whether a face fits its age.

Shapes: B batch, C channels, H W height and width, S style.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agetf_pipeline.age_transformer.embedding import AgeEmbedding
from agetf_pipeline.age_transformer.sizes import ModelSettings


class DownBlock(nn.Module):
    """Residual block that halves the resolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return features at half the size."""
        h_BCHW = F.leaky_relu(self.conv1(F.leaky_relu(x_BCHW, 0.2)), 0.2)
        h_BCHW = self.conv2(F.avg_pool2d(h_BCHW, 2))
        return (h_BCHW + self.shortcut(F.avg_pool2d(x_BCHW, 2))) * 0.7


class Discriminator(nn.Module):
    """Projection discriminator on the continuous age embedding, with minibatch deviation.

    Source: projection, Miyato and Koyama 2018; minibatch standard deviation, Karras et al. 2018.
    """

    def __init__(self, settings: ModelSettings, group_size: int = 4) -> None:
        super().__init__()
        self.group_size = group_size
        self.patch_px = settings.patch_px
        widths: Sequence[int] = settings.channels
        self.stem = nn.Conv2d(3 * settings.patch_px**2, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(DownBlock(a, b) for a, b in itertools.pairwise(widths))
        self.last = nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1)
        self.head = nn.Linear(widths[-1], 1)
        self.age = AgeEmbedding(settings.anchors_years, widths[-1], settings.num_frequencies)

    def forward(self, image_BCHW: Tensor, ages_B: Tensor) -> Tensor:
        """Return logits, (B,), of faces (-1 to 1) being real faces of their ages in years."""
        h_BCHW = self.stem(F.pixel_unshuffle(image_BCHW, self.patch_px))
        for block in self.blocks:
            h_BCHW = block(h_BCHW)
        h_BCHW = torch.cat([h_BCHW, minibatch_deviation(h_BCHW, self.group_size)], dim=1)
        pooled_BC = F.leaky_relu(self.last(F.leaky_relu(h_BCHW, 0.2)), 0.2).mean(dim=(2, 3))
        fits_B = (pooled_BC * self.age(ages_B)).sum(dim=1) / pooled_BC.shape[1] ** 0.5
        return (self.head(pooled_BC).squeeze(1) + fits_B).float()


def minibatch_deviation(h_BCHW: Tensor, group_size: int) -> Tensor:
    """Return one channel, (B, 1, H, W): how much the faces of a group differ among themselves."""
    B, C, H, W = h_BCHW.shape
    group = group_size if B % group_size == 0 else B
    grouped = h_BCHW.float().view(group, B // group, C, H, W)
    deviation = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return deviation.repeat(group)[:, None, None, None].expand(B, 1, H, W).to(h_BCHW.dtype)
