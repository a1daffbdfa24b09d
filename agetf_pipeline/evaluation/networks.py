"""Networks that only judge: an age estimator and an identity embedder outside training.

Their architectures (residual, batch-normalised, with heads over a grid of places) differ on
purpose from those that guide training, so that what training learns to please is not what
measures it.

Shapes: B batch, C channels, H W image, K age bins, D embedding, L places.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_AGE_BINS = 101
GRID = 4
_PLACES = 8


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation around a shortcut, halving the image."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return features of half the size (B, C', H/2, W/2)."""
        h = F.silu(self.norm1(self.conv1(x_BCHW)))
        h = self.norm2(self.conv2(h))
        return F.silu(h + self.shortcut(F.avg_pool2d(x_BCHW, 2)))


def trunk(width: int) -> nn.Sequential:
    """Three residual blocks after a strided stem: 1/16 of the size, 4 * width channels."""
    return nn.Sequential(
        nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(width),
        nn.SiLU(),
        ResidualBlock(width, width),
        ResidualBlock(width, 2 * width),
        ResidualBlock(2 * width, 4 * width),
    )


class AgeEstimator(nn.Module):
    """Reads a distribution over the ages 0..100 from faces.

    The head sees where each feature lies (a 4 x 4 grid): wrinkles mean age on a forehead, and
    shadow under a chin. Pooling over the whole image cost two years of error.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = trunk(width)
        self.head = nn.Sequential(
            nn.Linear(4 * width * GRID**2, 8 * width), nn.SiLU(),
            nn.Linear(8 * width, NUM_AGE_BINS),
        )  # fmt: skip

    def forward(self, faces_BCHW: Tensor) -> Tensor:
        """Return log-probabilities of the ages (B, K) from faces in [-1, 1]."""
        features = F.adaptive_avg_pool2d(self.trunk(faces_BCHW), GRID)
        return self.head(features.flatten(1)).log_softmax(dim=-1)


class IdentityEmbedder(nn.Module):
    """Maps faces to unit vectors: near for one person at any age, far for two.

    What tells two people apart is small: at 64 px the distance of the eyes differs by less than a
    pixel. So places are kept (8 x 8 of them, where pooling to 4 x 4 lost what the faces' measures
    say), and a last linear map, Fisher's discriminant (`evaluation.discriminant`), turns away from
    what age does.
    """

    def __init__(self, width: int, embedding_dim: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.SiLU(),
            ResidualBlock(width, 2 * width),
            ResidualBlock(2 * width, 4 * width),
        )
        self.project = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(4 * width * _PLACES**2, embedding_dim, bias=False)
        )
        self.norm = nn.BatchNorm1d(embedding_dim)
        self.discriminant = nn.Linear(embedding_dim, embedding_dim)
        # Not learned with the rest, but computed after it; until then it changes nothing.
        self.discriminant.requires_grad_(False)
        self.discriminant.weight.copy_(torch.eye(embedding_dim))
        self.discriminant.bias.zero_()

    def forward(self, faces_BCHW: Tensor) -> Tensor:
        """Return unit embeddings (B, D) from faces in [-1, 1], sides of 64 px or a multiple."""
        return F.normalize(self.discriminant(self.features(faces_BCHW)), dim=-1)

    def features(self, faces_BCHW: Tensor) -> Tensor:
        """Return what is seen of each face (B, D): in evaluation, of it and its mirror image."""
        if self.training:
            return self._seen(faces_BCHW)
        return (self._seen(faces_BCHW) + self._seen(faces_BCHW.flip(-1))) / 2

    def _seen(self, faces_BCHW: Tensor) -> Tensor:
        places = F.adaptive_avg_pool2d(self.trunk(faces_BCHW), _PLACES)
        return self.norm(self.project(places.flatten(1)))
