"""ESRGAN: the architectures of basicsr, published or own weights, batches of images.

Shape suffixes: N images, H W pixels of the input, C channels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import load_state, read_state
from agetf_pipeline.enhance.basicsr_compat import rrdbnet_class, srvgg_class
from agetf_pipeline.enhance.tiling import plan_tiles, run_tiled

CODE_VERSION = "1"
_FEATHER_PX = 8


@dataclass(frozen=True)
class ESRGANSize:
    """Dimensions of one network.

    Attributes:
        num_features: Channels of the trunk.
        num_blocks: Residual-in-residual blocks (RRDBNet) or convolutions (SRVGG).
        num_growth: Channels that each dense layer adds (RRDBNet only).
        halo_px: Input pixels beside a tile that its output may depend on and that are discarded.
    """

    num_features: int
    num_blocks: int
    num_growth: int
    halo_px: int


SIZES: dict[tuple[str, str], ESRGANSize] = {
    ("rrdbnet", "tiny"): ESRGANSize(24, 2, 12, 16),
    ("rrdbnet", "full"): ESRGANSize(64, 23, 32, 16),
    ("srvgg", "tiny"): ESRGANSize(24, 6, 0, 12),
    ("srvgg", "full"): ESRGANSize(64, 32, 0, 16),
}
"""`full` are the published x4plus and x2plus (rrdbnet) and general-x4v3 (srvgg)."""


def build_esrgan(arch: Literal["rrdbnet", "srvgg"], size: str, scale: int) -> nn.Module:
    """Return an untrained network, float (N, 3, H, W) in 0..1 to (N, 3, scale * H, scale * W).

    RRDBNet of scale 2 pixel-unshuffles its input first, as the published x2plus does.
    """
    dims = SIZES[arch, size]
    if arch == "srvgg":
        return srvgg_class()(
            num_in_ch=3,
            num_out_ch=3,
            num_feat=dims.num_features,
            num_conv=dims.num_blocks,
            upscale=scale,
            act_type="prelu",
        )
    return rrdbnet_class()(
        num_in_ch=3,
        num_out_ch=3,
        scale=scale,
        num_feat=dims.num_features,
        num_block=dims.num_blocks,
        num_grow_ch=dims.num_growth,
    )


def published_state(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the parameters of a published checkpoint: `params_ema`, else `params`, else itself."""
    for key in ("params_ema", "params"):
        if isinstance(state.get(key), dict):
            return state[key]
    return state


@dataclass(frozen=True)
class SuperResolver:
    """A trained network, ready for images.

    Attributes:
        network: In evaluation mode, on its device.
        scale: Of the network.
        halo_px: See `ESRGANSize`.
        align_px: Sides of its input are padded to multiples of it.
        version: `<sha256[:12]>-<code version>`.
    """

    network: nn.Module
    scale: int
    halo_px: int
    align_px: int
    version: str

    def __call__(self, rgb_NHW3: np.ndarray, tile_px: int, batch_size: int = 4) -> np.ndarray:
        """Super-resolve images of one size.

        Args:
            rgb_NHW3: uint8.
            tile_px: Larger images are done in tiles of this side, of the input.
            batch_size: Images, or tiles, a call of the network: small is fast on a CPU.

        Returns:
            uint8 (N, scale * H, scale * W, 3).
        """
        height, width = rgb_NHW3.shape[1:3]
        tile_px = tile_px // self.align_px * self.align_px
        device = next(self.network.parameters()).device
        whole = max(height, width) <= tile_px
        outputs = []
        for start in range(0, len(rgb_NHW3), batch_size if whole else 1):
            images = rgb_NHW3[start : start + (batch_size if whole else 1)]
            x_N3HW = torch.from_numpy(np.ascontiguousarray(images)).to(device)
            x_N3HW = x_N3HW.permute(0, 3, 1, 2).float() / 255
            below, right = -height % self.align_px, -width % self.align_px
            if below or right:
                x_N3HW = F.pad(x_N3HW, (0, right, 0, below), mode="replicate")
            with torch.inference_mode():
                y = self.network(x_N3HW) if whole else self._tiled(x_N3HW[0], tile_px, batch_size)
            y = y[:, :, : self.scale * height, : self.scale * width]
            eight_bits = (y.clamp(0, 1) * 255).round().to(torch.uint8)
            outputs.append(eight_bits.permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(outputs)

    def _tiled(self, x_3HW: Tensor, tile_px: int, batch_size: int) -> Tensor:
        height, width = x_3HW.shape[1:]
        plan = plan_tiles(height, width, tile_px, self.halo_px, _FEATHER_PX, self.align_px)
        return run_tiled(self.network, x_3HW, plan, self.scale, batch_size)[None]


def load_esrgan(
    path: Path,
    arch: Literal["rrdbnet", "srvgg"],
    size: str,
    scale: int,
    device: "torch.device | str" = "cpu",
) -> SuperResolver:
    """Load weights strictly: a published checkpoint, or our own safetensors.

    Raises:
        WeightsError: The file is absent, or does not fit the architecture.
        ConfigError: There is no such size.
    """
    if (arch, size) not in SIZES:
        raise ConfigError(f"Expected one of {sorted(SIZES)} as (arch, size); found {(arch, size)}.")
    network = build_esrgan(arch, size, scale)
    load_state(network, published_state(read_state(path)), str(path))
    version = f"{hash_file(path)[:12]}-{CODE_VERSION}"
    align = 2 if arch == "rrdbnet" and scale == 2 else 1
    halo = SIZES[arch, size].halo_px
    return SuperResolver(network.eval().to(device), scale, halo, align, version)
