"""DDColor: a ConvNeXt encoder, a U-Net decoder, and a decoder of colours that learns its queries.

Our own module after Kang et al., "DDColor: Towards Photo-Realistic Image Colorization via Dual
Decoders" (ICCV 2023). Weights in the published naming load through `from_published`.

Shape suffixes: B batch, C channels, H W image, h w feature map, Q queries, D hidden size, T tokens
of a feature map (h * w).
"""

import math
import re
from dataclasses import dataclass
from itertools import pairwise

import torch
from timm.layers.norm import LayerNorm2d
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import remove_spectral_norm, spectral_norm

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_NUM_SCALES = 3
DOWNSAMPLING = 32
"""Of the encoder: sides of the input are multiples of it."""


@dataclass(frozen=True)
class DDColorSize:
    """The dimensions of one DDColor.

    Attributes:
        depths: ConvNeXt blocks of the four encoder stages.
        encoder_dims: Channels of the four encoder stages.
        decoder_dim: Channels of the U-Net's first two blocks; the third has half.
        hidden_dim: Of the colour decoder.
        feedforward_dim: Of the colour decoder's MLPs.
        num_heads: Of its attentions.
        num_queries: Learned colours.
        num_layers: Of the colour decoder; layer i attends to scale i mod 3.
    """

    depths: tuple[int, int, int, int]
    encoder_dims: tuple[int, int, int, int]
    decoder_dim: int
    hidden_dim: int
    feedforward_dim: int
    num_heads: int
    num_queries: int
    num_layers: int


SIZES: dict[str, DDColorSize] = {
    "tiny": DDColorSize((1, 1, 2, 1), (24, 48, 72, 96), 64, 32, 64, 4, 16, 3),
    "base": DDColorSize((3, 3, 9, 3), (96, 192, 384, 768), 512, 256, 2048, 8, 100, 9),
    "large": DDColorSize((3, 3, 27, 3), (192, 384, 768, 1536), 512, 256, 2048, 8, 100, 9),
}
"""`base` and `large` are the published networks; `tiny` is ours, to be trained in seconds."""


class DDColor(nn.Module):
    """Predicts the colour of a grey picture."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: DDColorSize) -> None:
        super().__init__()
        self.size = size
        self.encoder = Encoder(size)
        self.decoder = DualDecoder(size)
        self.refine = spectral_norm(nn.Conv2d(size.num_queries + 3, 2, 1))
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, grey_B3HW: Tensor) -> Tensor:
        """Return the ab planes, float (B, 2, H, W), about -110 to 110.

        Args:
            grey_B3HW: float, grey as RGB, 0 to 1; sides in multiples of 32.
        """
        x_B3HW = (grey_B3HW - self.mean) / self.std
        colours_BQHW = self.decoder(self.encoder(x_B3HW))
        return self.refine(torch.cat([colours_BQHW, x_B3HW], dim=1))


class Encoder(nn.Module):
    """ConvNeXt whose four stages are normed and handed on, strides 4, 8, 16 and 32."""

    def __init__(self, size: DDColorSize) -> None:
        super().__init__()
        dims = size.encoder_dims
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), LayerNorm2d(dims[0], eps=1e-6))
        halvings = [
            nn.Sequential(LayerNorm2d(below, eps=1e-6), nn.Conv2d(below, above, 2, stride=2))
            for below, above in pairwise(dims)
        ]
        self.downsample = nn.ModuleList([stem, *halvings])
        self.stages = nn.ModuleList(
            nn.Sequential(*[ConvNeXtBlock(dim) for _ in range(depth)])
            for depth, dim in zip(size.depths, dims, strict=True)
        )
        self.norms = nn.ModuleList(LayerNorm2d(dim, eps=1e-6) for dim in dims)

    def forward(self, x_B3HW: Tensor) -> list[Tensor]:
        """Return the normed feature maps, finest first."""
        features, x = [], x_B3HW
        for downsample, stage, norm in zip(self.downsample, self.stages, self.norms, strict=True):
            x = stage(downsample(x))
            features.append(norm(x))
        return features


class DualDecoder(nn.Module):
    """The pixel decoder (U-Net) and the colour decoder, joined by a product."""

    def __init__(self, size: DDColorSize) -> None:
        super().__init__()
        dims, width = size.encoder_dims, size.decoder_dim
        self.blocks = nn.ModuleList(
            [
                UNetBlock(dims[3], dims[2], width),
                UNetBlock(width, dims[1], width),
                UNetBlock(width, dims[0], width // 2),
            ]
        )
        self.last = PixelShuffleUp(width // 2, width // 2, scale=4, normed=False)
        self.colours = ColourDecoder(size)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return how much of each learned colour every pixel has, (B, Q, H, W)."""
        x, scales = features[3], []
        for block, skip in zip(self.blocks, features[2::-1], strict=True):
            x = block(x, skip)
            scales.append(x)
        pixels_BCHW = self.last(x)
        return torch.einsum("bqc,bchw->bqhw", self.colours(scales), pixels_BCHW)


class UNetBlock(nn.Module):
    """Doubles the size, joins the encoder's map of that size, and mixes."""

    def __init__(self, in_dim: int, skip_dim: int, out_dim: int) -> None:
        super().__init__()
        self.up = PixelShuffleUp(in_dim, out_dim, scale=2, normed=True)
        self.skip_norm = nn.BatchNorm2d(skip_dim)
        self.conv = spectral_norm(nn.Conv2d(out_dim + skip_dim, out_dim, 3, padding=1, bias=False))
        self.norm = nn.BatchNorm2d(out_dim)

    def forward(self, x_BChw: Tensor, skip: Tensor) -> Tensor:
        """Return (B, out_dim, 2h, 2w)."""
        joined = torch.cat([self.up(x_BChw), self.skip_norm(skip)], dim=1)
        return self.norm(F.relu(self.conv(F.relu(joined))))


class PixelShuffleUp(nn.Module):
    """Upsampling by pixel shuffle, then a 2 x 2 mean against checkerboards.

    Source of the mean: Sugawara et al., "Super-Resolution Using Convolutional Neural Networks
    Without Any Checkerboard Artifacts" (2018).
    """

    def __init__(self, in_dim: int, out_dim: int, scale: int, normed: bool) -> None:
        super().__init__()
        self.scale = scale
        conv = nn.Conv2d(in_dim, out_dim * scale**2, 1, bias=not normed)
        # Every sub-pixel starts from the same weights: it begins as nearest-neighbour upsampling.
        start = nn.init.kaiming_normal_(torch.empty(out_dim, in_dim, 1, 1))
        with torch.no_grad():
            conv.weight.copy_(start.repeat_interleave(scale**2, dim=0))
        self.conv = spectral_norm(conv)
        self.norm = nn.BatchNorm2d(out_dim * scale**2) if normed else nn.Identity()

    def forward(self, x_BChw: Tensor) -> Tensor:
        """Return (B, out_dim, scale * h, scale * w)."""
        x = F.pixel_shuffle(F.relu(self.norm(self.conv(x_BChw))), self.scale)
        return F.avg_pool2d(F.pad(x, (1, 0, 1, 0), mode="replicate"), 2, stride=1)


class ColourDecoder(nn.Module):
    """Learned queries that attend to the U-Net's three scales, and become colours."""

    def __init__(self, size: DDColorSize) -> None:
        super().__init__()
        width, hidden = size.decoder_dim, size.hidden_dim
        self.query_start = nn.Embedding(size.num_queries, hidden)
        self.query_position = nn.Embedding(size.num_queries, hidden)
        self.level = nn.Embedding(_NUM_SCALES, hidden)
        self.inputs = nn.ModuleList(nn.Conv2d(dim, hidden, 1) for dim in (width, width, width // 2))
        self.layers = nn.ModuleList(ColourLayer(size) for _ in range(size.num_layers))
        self.norm = nn.LayerNorm(hidden)
        self.mlp = nn.ModuleList(
            [nn.Linear(hidden, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, width // 2)]
        )

    def forward(self, scales: list[Tensor]) -> Tensor:
        """Return the colour of each query as weights on the pixel decoder's channels, (B, Q, C)."""
        memory, keys = [], []
        for index, (project, x_BChw) in enumerate(zip(self.inputs, scales, strict=True)):
            tokens_BTD = project(x_BChw).flatten(2).transpose(1, 2) + self.level.weight[index]
            memory.append(tokens_BTD)
            height, width = x_BChw.shape[2:]
            keys.append(tokens_BTD + sine_positions(height, width, tokens_BTD))
        position_QD = self.query_position.weight
        x_BQD = self.query_start.weight.expand(scales[0].shape[0], -1, -1)
        for index, layer in enumerate(self.layers):
            scale = index % _NUM_SCALES
            x_BQD = layer(x_BQD, position_QD, keys[scale], memory[scale])
        first, second, third = self.mlp
        return third(F.relu(second(F.relu(first(self.norm(x_BQD))))))


class ColourLayer(nn.Module):
    """Cross-attention to the image, self-attention among the queries, MLP; norms afterwards."""

    def __init__(self, size: DDColorSize) -> None:
        super().__init__()
        dim, heads = size.hidden_dim, size.num_heads
        self.cross = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.cross_norm = nn.LayerNorm(dim)
        self.self_ = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.self_norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, size.feedforward_dim)
        self.contract = nn.Linear(size.feedforward_dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)

    def forward(
        self, x_BQD: Tensor, position_QD: Tensor, key_BTD: Tensor, value_BTD: Tensor
    ) -> Tensor:
        """Return the queries after this layer, (B, Q, D)."""
        seen = self.cross(x_BQD + position_QD, key_BTD, value_BTD, need_weights=False)[0]
        x_BQD = self.cross_norm(x_BQD + seen)
        query = x_BQD + position_QD
        x_BQD = self.self_norm(x_BQD + self.self_(query, query, x_BQD, need_weights=False)[0])
        return self.mlp_norm(x_BQD + self.contract(F.relu(self.expand(x_BQD))))


def sine_positions(height: int, width: int, like: Tensor) -> Tensor:
    """Return sine and cosine position encodings, (height * width, D), rows first.

    Half of the D = like.shape[-1] channels tell the row, half the column; positions run from just
    above 0 to 2 pi. Source: Carion et al., "End-to-End Object Detection with Transformers" (2020).
    """
    half = like.shape[-1] // 2
    step = torch.arange(half, dtype=torch.float32, device=like.device)
    period = 10000 ** (2 * torch.div(step, 2, rounding_mode="floor") / half)

    def encode(length: int) -> Tensor:
        place = torch.arange(1, length + 1, dtype=torch.float32, device=like.device)
        angle = (place / (length + 1e-6) * (2 * math.pi))[:, None] / period
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)

    rows = encode(height)[:, None].expand(height, width, half)
    columns = encode(width)[None].expand(height, width, half)
    return torch.cat([rows, columns], dim=2).reshape(height * width, 2 * half).to(like.dtype)


def fold_spectral_norm(module: nn.Module) -> None:
    """Divide every weight by its spectral norm once and for all: the same network, faster."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d) and hasattr(child, "weight_orig"):
            remove_spectral_norm(child)


_PUBLISHED_NAMES: tuple[tuple[str, str], ...] = (
    (r"^encoder\.arch\.downsample_layers\.", "encoder.downsample."),
    (r"^encoder\.arch\.norm(\d)\.", r"encoder.norms.\1."),
    (r"^encoder\.arch\.stages\.", "encoder.stages."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv1\.", ".mlp.fc1."),
    (r"\.pwconv2\.", ".mlp.fc2."),
    (r"^decoder\.layers\.(\d)\.shuf\.conv\.0\.", r"decoder.blocks.\1.up.conv."),
    (r"^decoder\.layers\.(\d)\.shuf\.conv\.1\.", r"decoder.blocks.\1.up.norm."),
    (r"^decoder\.layers\.(\d)\.bn\.", r"decoder.blocks.\1.skip_norm."),
    (r"^decoder\.layers\.(\d)\.conv\.0\.", r"decoder.blocks.\1.conv."),
    (r"^decoder\.layers\.(\d)\.conv\.2\.", r"decoder.blocks.\1.norm."),
    (r"^decoder\.last_shuf\.conv\.0\.", "decoder.last.conv."),
    (r"^decoder\.color_decoder\.query_feat\.", "decoder.colours.query_start."),
    (r"^decoder\.color_decoder\.query_embed\.", "decoder.colours.query_position."),
    (r"^decoder\.color_decoder\.level_embed\.", "decoder.colours.level."),
    (r"^decoder\.color_decoder\.input_proj\.", "decoder.colours.inputs."),
    (
        r"^decoder\.color_decoder\.transformer_cross_attention_layers\.(\d+)\.multihead_attn\.",
        r"decoder.colours.layers.\1.cross.",
    ),
    (
        r"^decoder\.color_decoder\.transformer_cross_attention_layers\.(\d+)\.norm\.",
        r"decoder.colours.layers.\1.cross_norm.",
    ),
    (
        r"^decoder\.color_decoder\.transformer_self_attention_layers\.(\d+)\.self_attn\.",
        r"decoder.colours.layers.\1.self_.",
    ),
    (
        r"^decoder\.color_decoder\.transformer_self_attention_layers\.(\d+)\.norm\.",
        r"decoder.colours.layers.\1.self_norm.",
    ),
    (
        r"^decoder\.color_decoder\.transformer_ffn_layers\.(\d+)\.linear1\.",
        r"decoder.colours.layers.\1.expand.",
    ),
    (
        r"^decoder\.color_decoder\.transformer_ffn_layers\.(\d+)\.linear2\.",
        r"decoder.colours.layers.\1.contract.",
    ),
    (
        r"^decoder\.color_decoder\.transformer_ffn_layers\.(\d+)\.norm\.",
        r"decoder.colours.layers.\1.mlp_norm.",
    ),
    (r"^decoder\.color_decoder\.decoder_norm\.", "decoder.colours.norm."),
    (r"^decoder\.color_decoder\.color_embed\.layers\.", "decoder.colours.mlp."),
    (r"^refine_net\.0\.0\.", "refine."),
)
_UNUSED = re.compile(r"^encoder\.arch\.norm\.")
"""The classifier's last norm travels in published checkpoints; colourisation never reads it."""


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a published DDColor state dict under the names of this module.

    Names that are ours already, and names nobody knows, pass unchanged: strict loading then lists
    what does not fit.
    """
    renamed = {}
    for name, tensor in state.items():
        if _UNUSED.match(name):
            continue
        for pattern, replacement in _PUBLISHED_NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
