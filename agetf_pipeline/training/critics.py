"""The two frozen networks that guide training: an age regressor and an identity embedder.

Both are differentiable, small, and trained on the training split alone. Evaluation has networks of
its own, of another architecture, that nothing here reads. Shapes: N images, C H W, K age bins,
D embedding.
"""

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from agetf_pipeline.age_transformer.layers import ResBlock
from agetf_pipeline.data.schemas import NUM_AGE_BINS

EMBEDDING_DIM = 96


class Critic(nn.Module):
    """Residual network over small faces with one linear head."""

    def __init__(self, num_outputs: int, width: int, input_px: int) -> None:
        super().__init__()
        self.input_px = input_px
        widths = (width, 2 * width, 3 * width)
        # Folding pixels into channels keeps fine texture at a quarter of the positions.
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, width, 3, 2, 1))
        self.stages = nn.ModuleList(ResBlock(channels) for channels in widths)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))
        self.norm = nn.GroupNorm(1, widths[-1])
        self.head = nn.Linear(widths[-1] * 16, num_outputs)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Return the head's outputs of images, -1 to 1, of any square size."""
        if image_NCHW.shape[-1] != self.input_px:
            size = (self.input_px, self.input_px)
            image_NCHW = F.interpolate(image_NCHW, size, mode="bilinear", antialias=True)
        h_NCHW = self.stem(image_NCHW)
        for index, stage in enumerate(self.stages):
            if index:
                h_NCHW = self.downs[index - 1](h_NCHW)
            h_NCHW = stage(h_NCHW)
        # Where on the face something is matters to age and identity: 4 x 4 places are kept.
        pooled = F.adaptive_avg_pool2d(F.silu(self.norm(h_NCHW)), 4)
        return self.head(F.dropout(pooled.flatten(1), 0.1, self.training)).float()


class AgeRegressor(nn.Module):
    """Gives logits over the ages 0..100, (N, K)."""

    def __init__(self, width: int, input_px: int) -> None:
        super().__init__()
        self.network = Critic(NUM_AGE_BINS, width, input_px)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Return logits over age bins of images, -1 to 1."""
        return self.network(image_NCHW)


class IdentityEmbedder(nn.Module):
    """Gives unit vectors, (N, D), near each other for one person at any age."""

    def __init__(self, width: int, input_px: int) -> None:
        super().__init__()
        self.network = Critic(EMBEDDING_DIM, width, input_px)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Return unit embeddings of images, -1 to 1."""
        return F.normalize(self.network(image_NCHW), dim=1)
