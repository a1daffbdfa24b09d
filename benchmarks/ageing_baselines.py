"""What the AgeTransformer is measured against: a copy, the nearest neighbour, a residual U-Net.

The U-Net is written from the description of FRAN (Zoss et al., "Production-Ready Face Re-Aging for
Visual Effects", 2022): RGB and two planes that hold source and target age go in, a change of RGB
comes out and is added to the face. Blurred pooling, bilinear upsampling; one pass an age.

Shapes: N faces or renderings, A ages, S side, D embedding.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agetf_pipeline.age_transformer.renderer import to_tensor, to_uint8
from agetf_pipeline.training.critics import IdentityEmbedder
from benchmarks.ageing_data import Lessons

_MAX_AGE_GAP_YEARS = 4.0


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, each with batch normalisation and a leaky rectifier."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.01),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.01),
        )  # fmt: skip

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return features of the same size."""
        return self.layers(x_NCHW)


class ResidualUNet(nn.Module):
    """The U-Net; `width` 64 is the published one (31 million parameters)."""

    def __init__(self, width: int = 16, num_levels: int = 5) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(num_levels)]
        self.first = DoubleConv(5, widths[0])
        self.downs = nn.ModuleList(DoubleConv(a, b) for a, b in itertools.pairwise(widths))
        self.halves = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.ups = nn.ModuleList(DoubleConv(2 * a, a) for a in widths[:-1])
        self.to_change = nn.Conv2d(widths[0], 3, 1)
        # It starts at the face itself, as the AgeTransformer does.
        nn.init.zeros_(self.to_change.weight)
        assert self.to_change.bias is not None
        nn.init.zeros_(self.to_change.bias)

    def forward(self, face_NCHW: Tensor, source_N: Tensor, target_N: Tensor) -> Tensor:
        """Return faces, -1 to 1, aged from `source_N` to `target_N` years."""
        ages_N2 = torch.stack([source_N, target_N], dim=1) / 100
        planes = ages_N2[:, :, None, None].expand(-1, -1, *face_NCHW.shape[2:])
        h_NCHW = self.first(torch.cat([face_NCHW, planes.to(face_NCHW.dtype)], dim=1))
        skips = []
        for down in self.downs:
            skips.append(h_NCHW)
            h_NCHW = down(blurred_half(h_NCHW))
        for half, up, skip in zip(
            reversed(self.halves), reversed(self.ups), reversed(skips), strict=True
        ):
            h_NCHW = F.interpolate(
                half(h_NCHW), scale_factor=2.0, mode="bilinear", align_corners=False
            )
            h_NCHW = up(torch.cat([skip, h_NCHW], dim=1))
        return face_NCHW + self.to_change(h_NCHW).float()


def blurred_half(x_NCHW: Tensor) -> Tensor:
    """Return features at half the size, blurred by (1, 2, 1) / 4 both ways first (Zhang 2019).

    Two means of neighbours, one after the other, are that filter.
    """
    padded = F.pad(x_NCHW, (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, 2, 1), 2, 2, ceil_mode=False)


def render_unet(
    network: ResidualUNet, faces_NHWC: np.ndarray, source_ages_N: np.ndarray, ages: Sequence[float]
) -> np.ndarray:
    """Render faces, uint8 (N, S, S, 3), at A ages: uint8 (N, A, S, S, 3). It is told the truth of
    the source's age, which the AgeTransformer is not."""
    network.eval()
    wanted = torch.tensor(list(ages), dtype=torch.float32)
    out = []
    with torch.inference_mode():
        for face, age in zip(faces_NHWC, source_ages_N, strict=True):
            batch = to_tensor(face[None]).expand(len(wanted), -1, -1, -1)
            out.append(to_uint8(network(batch, torch.full_like(wanted, float(age)), wanted)))
    return np.stack(out)


def render_copy(faces_NHWC: np.ndarray, num_ages: int) -> np.ndarray:
    """Return each face as it is, A times over, uint8 (N, A, S, S, 3)."""
    return np.repeat(faces_NHWC[:, None], num_ages, axis=1)


def embed_faces(network: IdentityEmbedder, faces_NHWC: np.ndarray) -> np.ndarray:
    """Return unit embeddings, float32 (N, D), by the identity network that guides training."""
    with torch.inference_mode():
        parts = [
            network(to_tensor(faces_NHWC[start : start + 128])).numpy()
            for start in range(0, len(faces_NHWC), 128)
        ]
    return np.concatenate(parts)


def nearest_faces(
    embeddings_ND: np.ndarray,
    genders_N: np.ndarray,
    known_MD: np.ndarray,
    known_ages_M: np.ndarray,
    known_genders_M: np.ndarray,
    ages: Sequence[float],
    max_gap_years: float = _MAX_AGE_GAP_YEARS,
) -> np.ndarray:
    """Return which known face, of nearly the wanted age and of the same gender, is most like each.

    Args:
        embeddings_ND: Unit embeddings of the sources.
        genders_N: Their genders.
        known_MD: Unit embeddings of the faces to choose from.
        known_ages_M: Their ages, years.
        known_genders_M: Their genders.
        ages: The A wanted ages.
        max_gap_years: How far off an age may be; where no face is so near, the nearest ages count.

    Returns:
        int64 (N, A), rows of `known_MD`.
    """
    chosen = np.empty((len(embeddings_ND), len(ages)), np.int64)
    likeness_NM = embeddings_ND @ known_MD.T
    likeness_NM[genders_N[:, None] != known_genders_M[None]] -= 4.0
    for column, age in enumerate(ages):
        gap_M = np.abs(known_ages_M - age)
        allowed = np.flatnonzero(gap_M <= max(max_gap_years, gap_M.min()))
        chosen[:, column] = allowed[likeness_NM[:, allowed].argmax(axis=1)]
    return chosen


def render_nearest(
    network: IdentityEmbedder,
    lessons: Lessons,
    faces_NHWC: np.ndarray,
    genders_N: np.ndarray,
    ages: Sequence[float],
) -> np.ndarray:
    """Return the train part's faces nearest to the sources at A ages, uint8 (N, A, S, S, 3)."""
    data = lessons.data
    rows = nearest_faces(
        embed_faces(network, faces_NHWC), genders_N,
        embed_faces(network, data.images), data.ages_years, lessons.genders, ages,
    )  # fmt: skip
    return data.images[rows]
