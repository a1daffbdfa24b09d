"""Two pictures in, one field of tokens out: MiVOLO's patch embedding of a face and a body.

Each picture has a convolutional stem of its own. Then the face looks at the body and the body at
the face (attention whose queries come from one and whose keys and values come from the other), and
a perceptron over both joins them, so that the trunk sees as many features as for a face alone.

Sources: Kuprashevich and Tolstykh, "MiVOLO: Multi-input Transformer for Age and Gender
Estimation", 2023, section 3.2; Srinivas et al., "Bottleneck Transformers for Visual Recognition",
2021, for the attention with relative positions (timm's). Which picture gives the queries, the
order of the two halves and the absence of a residual path were settled by comparing outputs with
the official network (docs/golden_values.md). Names of parameters are those of published weights.

Shapes: N images, D features of one picture, h w cells of the patch grid, T = h * w.
"""

from typing import Any

import torch
from timm.layers.bottleneck_attn import PosEmbedRel
from timm.layers.mlp import Mlp
from timm.models.volo import PatchEmbed
from torch import Tensor, nn
from torch.nn import functional as F

from agetf_pipeline.experts.preprocess import PROFILES, normalise

_CHANNELS = 3
_PATCH_PX = 8


class CrossAttention(nn.Module):
    """The face looks at the body, the body at the face, and a perceptron joins what they saw."""

    def __init__(self, dim: int, grid: int) -> None:
        super().__init__()
        self.qkv_f = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.qkv_p = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.pos_embed = PosEmbedRel((grid, grid), dim_head=dim, scale=dim**-0.5)
        self.norm = nn.LayerNorm([2 * dim, grid, grid])
        self.mlp = Mlp(2 * dim, 4 * dim, dim, use_conv=True)

    def forward(self, face_NDhw: Tensor, body_NDhw: Tensor) -> Tensor:
        """Return the joined features, float (N, D, h, w)."""
        shape = face_NDhw.shape
        face_q, face_k, face_v = _tokens(self.qkv_f(face_NDhw))
        body_q, body_k, body_v = _tokens(self.qkv_p(body_NDhw))
        seen = [self._attend(face_q, body_k, body_v), self._attend(body_q, face_k, face_v)]
        both_NDhw = torch.cat([x_NTD.transpose(1, 2).reshape(shape) for x_NTD in seen], dim=1)
        return self.mlp(self.norm(both_NDhw))

    def _attend(self, q_NTD: Tensor, k_NTD: Tensor, v_NTD: Tensor) -> Tensor:
        positions_NTT = self.pos_embed(q_NTD)
        return F.scaled_dot_product_attention(q_NTD, k_NTD, v_NTD, attn_mask=positions_NTT)


class TwinPatchEmbed(nn.Module):
    """Patch embedding of a face and a body; stands in the place of VOLO's own.

    The embedding of a missing body is a constant of the weights: it is computed once and kept
    until they change or move.
    """

    def __init__(self, input_px: int, stem_dim: int, dim: int) -> None:
        super().__init__()
        self.conv1, self.proj1 = _stem(stem_dim, dim)
        self.conv2, self.proj2 = _stem(stem_dim, dim)
        self.map = CrossAttention(dim, input_px // _PATCH_PX)
        self._missing_body_1Dhw: Tensor | None = None

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Embed faces, with or without bodies.

        Args:
            x_NCHW: float, ImageNet-normalised: (N, 6, H, W), face then body, or (N, 3, H, W),
                faces whose bodies are all missing.

        Returns:
            float (N, D, H / 8, W / 8).
        """
        faces_NCHW = x_NCHW[:, :_CHANNELS]
        face_NDhw = self.proj1(self.conv1(faces_NCHW))
        if x_NCHW.shape[1] > _CHANNELS:
            body_NDhw = self.proj2(self.conv2(x_NCHW[:, _CHANNELS:]))
        else:
            body_NDhw = self._missing_bodies(faces_NCHW)
        return self.map(face_NDhw, body_NDhw)

    def _missing_bodies(self, faces_NCHW: Tensor) -> Tensor:
        count = len(faces_NCHW)
        if self.training:  # batch statistics are still on the move
            bodies_NCHW = missing_bodies(faces_NCHW[:1]).expand(count, -1, -1, -1)
            return self.proj2(self.conv2(bodies_NCHW))
        kept_1Dhw = self._missing_body_1Dhw
        if kept_1Dhw is None:
            # In the weights' own precision and outside inference mode, whoever asks first.
            device = faces_NCHW.device.type
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(device, enabled=False),
            ):
                blank = torch.zeros_like(faces_NCHW[:1], dtype=self.proj2.weight.dtype)
                kept_1Dhw = self.proj2(self.conv2(missing_bodies(blank)))
            self._missing_body_1Dhw = kept_1Dhw
        return kept_1Dhw.expand(count, -1, -1, -1)

    def _apply(self, fn: Any, recurse: bool = True) -> "TwinPatchEmbed":
        self._missing_body_1Dhw = None
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> "TwinPatchEmbed":
        """Set the mode; forgets the kept embedding, which training makes stale."""
        self._missing_body_1Dhw = None
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._missing_body_1Dhw = None
        super()._load_from_state_dict(*args, **kwargs)


def missing_bodies(like_NCHW: Tensor) -> Tensor:
    """Return what stands for missing bodies: black pictures, normalised like any other.

    Args:
        like_NCHW: float (N, 3, H, W); its shape, type and device are taken.
    """
    return normalise(torch.zeros_like(like_NCHW), PROFILES["imagenet"])


class ExactConv2d(nn.Conv2d):
    """A convolution that computes in float32 within autocast.

    For the projection of the patches: it is a fiftieth of the work, everything that follows stands
    on it, and of random weights it made half of the error that bfloat16 leaves where the last
    layers are exact.
    """

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the convolution of `x_NCHW`, float32."""
        if not torch.is_autocast_enabled(x_NCHW.device.type):
            return super().forward(x_NCHW)
        with torch.autocast(x_NCHW.device.type, enabled=False):
            return super().forward(x_NCHW.float())


def exact(conv: nn.Conv2d) -> ExactConv2d:
    """Return a convolution with the same parameters, of which none is drawn anew."""
    with torch.device("meta"):
        made = ExactConv2d(conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0])
    made.weight, made.bias = conv.weight, conv.bias
    return made


def _stem(stem_dim: int, dim: int) -> tuple[nn.Sequential, nn.Conv2d]:
    """Return VOLO's convolutions to stride 2, and its projection of 4 x 4 of their cells."""
    embed = PatchEmbed(stem_conv=True, stem_stride=2, hidden_dim=stem_dim, embed_dim=dim)
    assert embed.conv is not None  # asked for
    return embed.conv, exact(embed.proj)


def _tokens(qkv_Nchw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split (N, 3 D, h, w) into queries, keys and values, (N, T, D) each."""
    q_NTD, k_NTD, v_NTD = qkv_Nchw.flatten(2).transpose(1, 2).chunk(3, dim=2)
    return q_NTD, k_NTD, v_NTD
