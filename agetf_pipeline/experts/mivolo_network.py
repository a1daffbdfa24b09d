"""MiVOLO's network: a Vision Outlooker with age and gender outputs, and a head for the spread.

The module is built from timm's VOLO, whose parameter names the published weights share; the
spread of the age is read by a small head of ours beside it. Where it also reads the body, the
patch embedding of `mivolo_twin` stands in the place of VOLO's own.

Sources: Kuprashevich and Tolstykh, "MiVOLO: Multi-input Transformer for Age and Gender
Estimation", 2023; Yuan et al., "VOLO: Vision Outlooker for Visual Recognition", 2021.

Shapes: N images, T tokens, D features, O outputs (2 gender logits and an age, or an age alone).
"""

from dataclasses import dataclass

import torch
from timm.models.volo import VOLO
from torch import Tensor, nn

from agetf_pipeline.config.experts import NetworkSize
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.experts.heads import SigmaHead
from agetf_pipeline.experts.mivolo_twin import TwinPatchEmbed, exact

NUM_OUTPUTS = 3
PX_PER_POSITION = 16
"""Pixels between neighbours of the trunk's position embedding."""


@dataclass(frozen=True)
class Layout:
    """Depths, widths and heads of the four stages, and the width of the convolutional stem."""

    layers: tuple[int, ...]
    dims: tuple[int, ...]
    heads: tuple[int, ...]
    stem_dim: int


LAYOUTS: dict[str, Layout] = {
    # VOLO-d1.
    "full": Layout((4, 4, 8, 2), (192, 384, 384, 384), (6, 12, 12, 12), 64),
    "tiny": Layout((1, 1, 1, 1), (48, 96, 96, 96), (3, 6, 6, 6), 12),
}


@dataclass(frozen=True)
class AgeRange:
    """Scale of the age output: `age = out * (max - min) + average`, in years."""

    min_years: float = 0.0
    max_years: float = 100.0
    average_years: float = 40.0


def build_volo(
    size: NetworkSize, input_px: int, num_outputs: int = NUM_OUTPUTS, with_body: bool = False
) -> VOLO:
    """Return the trunk with its age and gender outputs, randomly initialised.

    Raises:
        WeightsError: The input size does not fit the two reductions (8 and 2).
    """
    if input_px % PX_PER_POSITION:
        raise WeightsError(
            f"Expected an input size for MiVOLO that is a multiple of {PX_PER_POSITION}; found "
            f"{input_px}. Change train_experts.experts.mivolo.input_px."
        )
    layout = LAYOUTS[size]
    volo = VOLO(
        layers=list(layout.layers),
        img_size=input_px,
        num_classes=num_outputs,
        embed_dims=list(layout.dims),
        num_heads=list(layout.heads),
        stem_hidden_dim=layout.stem_dim,
    )
    if with_body:
        volo.patch_embed = TwinPatchEmbed(input_px, layout.stem_dim, layout.dims[0])  # pyright: ignore[reportAttributeAccessIssue]
    else:
        volo.patch_embed.proj = exact(volo.patch_embed.proj)
    return volo


class MiVOLO(nn.Module):
    """The trunk, the scale of its age output, and the head that reads the spread.

    State: `volo.*` (the published names), `sigma_head.*` (ours), `age_range_years` (min, max, avg).
    """

    def __init__(
        self,
        size: NetworkSize,
        input_px: int,
        age_range: AgeRange | None = None,
        num_outputs: int = NUM_OUTPUTS,
        with_sigma: bool = True,
        with_body: bool = False,
    ) -> None:
        super().__init__()
        self.with_body = with_body
        self.volo = build_volo(size, input_px, num_outputs, with_body)
        self.sigma_head = SigmaHead(LAYOUTS[size].dims[-1]) if with_sigma else None
        scale = age_range or AgeRange()
        values = [scale.min_years, scale.max_years, scale.average_years]
        self.age_range_years: Tensor
        self.register_buffer("age_range_years", torch.tensor(values))

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Read ages and genders.

        Args:
            x_NCHW: float (N, 3, input_px, input_px), ImageNet-normalised RGB faces. A network that
                also reads bodies takes (N, 6, ...), face then body; given (N, 3, ...) it takes
                every body for missing.

        Returns:
            Ages in years (N,), unbounded; gender logits (N, 2), male then female, None for a
            network with the age alone; spreads in years (N,), None for a network without that head.
        """
        tokens_NTD, out_NO = self._through_trunk(x_NCHW)
        has_gender = out_NO.shape[1] == NUM_OUTPUTS
        low, high, average = self.age_range_years
        age_N = out_NO[:, 2 if has_gender else 0].float() * (high - low) + average
        sigma_N = None
        if self.sigma_head is not None:
            sigma_N = self.sigma_head(tokens_NTD[:, 0].detach().float())
        return age_N, out_NO[:, :2] if has_gender else None, sigma_N

    def _through_trunk(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens and the outputs; under autocast, the last layers compute in float32.

        Class attention and heads cost next to nothing, and of random weights they made half of what
        bfloat16 moves an age by.
        """
        volo = self.volo
        tokens_NTD = volo.forward_tokens(volo.patch_embed(x_NCHW).permute(0, 2, 3, 1))
        if not torch.is_autocast_enabled(x_NCHW.device.type):
            return self._read_tokens(tokens_NTD)
        with torch.autocast(x_NCHW.device.type, enabled=False):
            return self._read_tokens(tokens_NTD.float())

    def _read_tokens(self, tokens_NTD: Tensor) -> tuple[Tensor, Tensor]:
        if self.volo.post_network is not None:
            tokens_NTD = self.volo.forward_cls(tokens_NTD)
        tokens_NTD = self.volo.norm(tokens_NTD)
        return tokens_NTD, self.volo.forward_head(tokens_NTD)
