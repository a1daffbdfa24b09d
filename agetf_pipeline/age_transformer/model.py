"""The AgeTransformer: one encoding of a face, then any number of ages of it.

Shapes: B batch, A ages, N = B x A renderings, T tokens of the bottleneck, C channels, H W height
and width, S style, D width of the VLM embedding.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agetf_pipeline.age_transformer.embedding import AgeEmbedding
from agetf_pipeline.age_transformer.layers import ResBlock, StyledBlock, TransformerLayer, warp
from agetf_pipeline.age_transformer.sizes import ModelSettings

BOTTLENECK_PX = 8
# A gate that can shut does so at once, to reconstruct, and then lets no gradient through. What is
# painted is an offset, so an open gate can still leave a pixel as it is.
_MASK_FLOOR = 0.2
# A head sums hundreds of features, so that a step of Adam moves the whole flow at once: without a
# small gain it saturates before it has learned where to go, and the model goes back to copying.
# On synthetic pairs, over steps 101 to 150 at lr 6e-4, the share left of a copy's L1 was 93 % at a
# gain of 0.5, 88 % with 0.05 (82 % at lr 4e-4), 91 % with 0.01.
_FLOW_GAIN = 0.05


@dataclass(frozen=True)
class Encoded:
    """One face, encoded once: everything that the decoder needs, whatever the ages.

    Attributes:
        image: The image itself, (B, C, H, W), -1 to 1.
        bottleneck: Output of the transformer, (B, C, 8, 8).
        skips: Features of the levels at and below 16 x 16, coarse to fine.
        context: (B, S), pooled features and VLM token.
    """

    image: Tensor
    bottleneck: Tensor
    skips: tuple[Tensor, ...]
    context: Tensor


@dataclass(frozen=True)
class Rendered:
    """Renderings of a batch at its ages.

    Attributes:
        image: The faces, (B, A, C, H, W), -1 to 1.
        mask: (B, A, H, W), share of each pixel that is synthesised, 0 to 1.
        flow: (B, A, 2, h, w), low-resolution displacement of the warp, as a share of the side.
    """

    image: Tensor
    mask: Tensor
    flow: Tensor


class AgeTransformer(nn.Module):
    """Encoder with a transformer bottleneck, and a decoder modulated by age, batched over ages.

    `y = (1 - m) * warp(x, flow) + m * synth`: the flow changes the head's shape, the mask says
    where skin and hair are painted anew. Flow and synthesis start at nothing: an untrained model
    returns the image.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        channels, style = settings.channels, settings.style_dim
        patch = settings.patch_px
        self.stem = nn.Conv2d(3 * patch**2, channels[0], 3, padding=1)
        self.encoder_blocks = nn.ModuleList(ResBlock(width) for width in channels)
        self.downs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(channels)
        )
        deep = channels[-1]
        self.positions = nn.Parameter(torch.randn(BOTTLENECK_PX**2, deep) * 0.02)
        self.layers = nn.ModuleList(
            TransformerLayer(deep, settings.num_heads) for _ in range(settings.num_layers)
        )
        self.null_token = nn.Parameter(torch.zeros(deep))
        self.vlm_in = (
            nn.Sequential(nn.LayerNorm(settings.vlm_dim), nn.Linear(settings.vlm_dim, deep))
            if settings.vlm_dim
            else None
        )
        self.to_context = nn.Linear(2 * deep, style)
        self.age = AgeEmbedding(settings.anchors_years, style, settings.num_frequencies)
        self.age_norm = nn.LayerNorm(style)
        self.context_norm = nn.LayerNorm(style)
        # The last normalisation keeps the age as loud as the face, whatever the layers before.
        self.style = nn.Sequential(
            nn.Linear(2 * style, style), nn.SiLU(), nn.Linear(style, style),
            nn.LayerNorm(style, elementwise_affine=False), nn.SiLU(),
        )  # fmt: skip
        self.decoder_blocks = nn.ModuleList(
            nn.ModuleList(StyledBlock(width, style) for _ in range(count))
            for width, count in zip(channels, settings.blocks, strict=True)
        )
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(channels))
        # Level of the flow: 16 x 16. Skips at and below it are the encoder's, shared by all ages;
        # above it a skip would show the features where they were before the warp, so there the
        # warped image itself is folded into channels.
        self.flow_level = max(0, len(channels) - 2)
        self.skip_projections = nn.ModuleList(
            nn.Conv2d(width, width, 1) for width in channels[self.flow_level :]
        )
        self.warped_skips = nn.ModuleList(
            nn.Conv2d(3 * (patch * 2**level) ** 2, channels[level], 3 if level < 2 else 1,
                      padding=1 if level < 2 else 0)
            for level in range(self.flow_level)
        )  # fmt: skip
        self.flow_norm = nn.GroupNorm(1, channels[self.flow_level])
        self.to_flow = nn.Conv2d(channels[self.flow_level], 2, 3, padding=1)
        self.out_norm = nn.GroupNorm(1, channels[0])
        self.to_image = nn.Conv2d(channels[0], 4 * patch**2, 3, padding=1)
        self._start_at_the_image()

    def _start_at_the_image(self) -> None:
        for layer in (self.to_flow, self.to_image):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def encode(self, image_BCHW: Tensor, vlm_BD: Tensor | None = None) -> Encoded:
        """Encode faces once.

        Args:
            image_BCHW: Faces, (B, 3, size_px, size_px), -1 to 1.
            vlm_BD: VLM embeddings; a row of NaN, or None for all, takes the learned null token.
        """
        h_BCHW = self.stem(F.pixel_unshuffle(image_BCHW, self.settings.patch_px))
        skips = []
        for level, block in enumerate(self.encoder_blocks):
            if level:
                h_BCHW = self.downs[level - 1](h_BCHW)
            h_BCHW = block(h_BCHW)
            if level >= self.flow_level:
                skips.append(self.skip_projections[level - self.flow_level](h_BCHW))
        B, C = h_BCHW.shape[:2]
        tokens = h_BCHW.flatten(2).transpose(1, 2) + self.positions
        x_BTC = torch.cat([tokens, self._vlm_token(vlm_BD, B)[:, None].to(tokens.dtype)], dim=1)
        for layer in self.layers:
            x_BTC = layer(x_BTC)
        faces_BTC, token_BC = x_BTC[:, :-1], x_BTC[:, -1]
        context = self.to_context(torch.cat([faces_BTC.mean(dim=1), token_BC], dim=1))
        deep = faces_BTC.transpose(1, 2).reshape(B, C, BOTTLENECK_PX, BOTTLENECK_PX)
        return Encoded(image_BCHW, deep, tuple(reversed(skips)), context)

    def decode(self, encoded: Encoded, ages_BA: Tensor) -> Rendered:
        """Render encoded faces at ages in years, (B, A), in one batched pass."""
        B, A = ages_BA.shape
        size, patch = self.settings.size_px, self.settings.patch_px
        age_NS = self.age_norm(self.age(ages_BA.reshape(-1)))
        context_NS = _per_age(self.context_norm(encoded.context), A)
        style_NS = self.style(torch.cat([age_NS, context_NS], dim=1))
        deepest = len(self.settings.channels) - 1
        h_NCHW = _per_age(encoded.bottleneck + encoded.skips[0], A)
        flow_N2HW = warped_NCHW = None
        for level in range(deepest, -1, -1):
            if level < deepest:
                h_NCHW = F.interpolate(self.ups[level](h_NCHW), scale_factor=2.0, mode="nearest")
                if level >= self.flow_level:
                    h_NCHW = h_NCHW + _per_age(encoded.skips[deepest - level], A)
                else:
                    assert warped_NCHW is not None
                    folded = F.pixel_unshuffle(warped_NCHW, patch * 2**level)
                    h_NCHW = h_NCHW + self.warped_skips[level](folded)
            for block in self.decoder_blocks[level]:  # type: ignore[union-attr]
                h_NCHW = block(h_NCHW, style_NS)
            if level == self.flow_level:
                raw_N2HW = self.to_flow(F.silu(self.flow_norm(h_NCHW))).float()
                flow_N2HW = self.settings.max_flow * torch.tanh(_FLOW_GAIN * raw_N2HW)
                fine = F.interpolate(flow_N2HW, (size, size), mode="bilinear", align_corners=False)
                warped_NCHW = warp(_per_age(encoded.image, A), fine)
        assert flow_N2HW is not None
        assert warped_NCHW is not None
        out = F.pixel_shuffle(self.to_image(F.silu(self.out_norm(h_NCHW))), patch).float()
        mask_N1HW = _MASK_FLOOR + (1 - _MASK_FLOOR) * torch.sigmoid(out[:, 3:])
        # Painted relative to what is there: hair turns white by an offset that is the same for
        # every strand, where absolute colours would have to be learned for every background.
        warped = warped_NCHW.float()
        synth_NCHW = (warped + 2 * torch.tanh(out[:, :3])).clamp(-1, 1)
        image = (1 - mask_N1HW) * warped + mask_N1HW * synth_NCHW
        return Rendered(
            _per_face(image, B, A),
            _per_face(mask_N1HW[:, 0], B, A),
            _per_face(flow_N2HW, B, A),
        )

    def forward(
        self, image_BCHW: Tensor, ages_BA: Tensor, vlm_BD: Tensor | None = None
    ) -> Rendered:
        """Encode once, and render at every age."""
        return self.decode(self.encode(image_BCHW, vlm_BD), ages_BA)

    def _vlm_token(self, vlm_BD: Tensor | None, batch: int) -> Tensor:
        null_BC = self.null_token.expand(batch, -1)
        if vlm_BD is None or self.vlm_in is None:
            return null_BC
        absent_B = torch.isnan(vlm_BD).any(dim=1, keepdim=True)
        return torch.where(absent_B, null_BC, self.vlm_in(torch.nan_to_num(vlm_BD.float())))


def _per_age(x: Tensor, num_ages: int) -> Tensor:
    """Repeat each row of a batch for its ages: (B, ...) to (B x A, ...)."""
    return x.repeat_interleave(num_ages, dim=0)


def _per_face(x: Tensor, batch: int, num_ages: int) -> Tensor:
    """Give each face its ages: (B x A, ...) to (B, A, ...)."""
    if torch.compiler.is_exporting():
        # Tracing a view asks whether B x A equals B, and fixes the answer: the exported program
        # would refuse a single age.
        rows = torch.arange(batch, device=x.device)[:, None] * num_ages
        return x[rows + torch.arange(num_ages, device=x.device)]
    return x.view(batch, num_ages, *x.shape[1:])
