"""ESRGAN: the architectures of basicsr, published or own weights, batches of images.

Shape suffixes: N images, H W pixels of the input, C channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import load_state, read_state
from agetf_pipeline.enhance.basicsr_compat import rrdbnet_class, srvgg_class
from agetf_pipeline.enhance.engine import InFp32, Precision, inference, map_batches, tag
from agetf_pipeline.enhance.tiling import (
    activation_bytes_per_px,
    plan_tiles,
    run_tiled_uint8,
    tile_px_for,
    whole_mib,
)

CODE_VERSION = "2"
_FEATHER_PX = 8
_SETTING = "enhance.batch_size"
_REMEDY = "Lower enhance.tile_px, or cap the memory by enhance.max_memory_mib."


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
    ("rrdbnet", "anime_6b"): ESRGANSize(64, 6, 32, 16),
    ("srvgg", "tiny"): ESRGANSize(24, 6, 0, 12),
    ("srvgg", "full"): ESRGANSize(64, 32, 0, 16),
}
"""`full` are the published x4plus and x2plus (rrdbnet) and general-x4v3 (srvgg); `anime_6b` is
x4plus_anime_6B."""


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
        version: `<sha256[:12]>-<code version>`, and `-bf16` in that precision.
        precision: bf16 is autocast over fp32 weights: as fast as bf16 weights, and more accurate.
        channels_per_px: Of its widest layer, see `tiling.activation_bytes_per_px`.
        max_memory_mib: What enlarging may take; smaller tiles keep to it. None: no cap.
    """

    network: nn.Module
    scale: int
    halo_px: int
    align_px: int
    version: str
    precision: Precision = "fp32"
    channels_per_px: int = 0
    max_memory_mib: int | None = None

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
        tile_px = self._affordable(height, width, tile_px // self.align_px * self.align_px)
        if max(height, width) <= tile_px:
            starts = range(0, len(rgb_NHW3), batch_size)
            batches = [rgb_NHW3[start : start + batch_size] for start in starts]
            answers = map_batches(self._fitting, batches, self.device)
            return np.concatenate(list(answers))
        # The tiles of a large image are a batch: one image at a time bounds the memory.
        at_once = batch_size if self.max_memory_mib is None else 1
        return np.stack([self._tiled(image, tile_px, at_once) for image in rgb_NHW3])

    def num_at_once(
        self, height: int, width: int, tile_px: int, batch_size: int, num_calls: int
    ) -> int:
        """Return how many images of a size a call may take where calls run side by side.

        Args:
            height: Of the images.
            width: Of the images.
            tile_px: As it is called with.
            batch_size: At most.
            num_calls: How many calls there are; together they keep to the cap.

        Returns:
            0: an image needs tiles, or more of the cap than its part: nothing is to run beside it.

        Raises:
            ConfigError: The cap does not even hold the smallest tile.
        """
        tile_px = self._affordable(height, width, tile_px // self.align_px * self.align_px)
        if max(height, width) > tile_px:
            return 0
        if self.max_memory_mib is None:
            return batch_size
        needed = activation_bytes_per_px(self.channels_per_px)
        needed_mib = whole_mib(height, width, self.scale, needed)
        return min(batch_size, int(self.max_memory_mib / num_calls / needed_mib))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def _run(self, network: Callable[[Tensor], Tensor], rgb_NHW3: np.ndarray) -> np.ndarray:
        """Run something that enlarges tensors on a batch of pictures."""
        height, width = rgb_NHW3.shape[1:3]
        x_N3HW = torch.from_numpy(np.ascontiguousarray(rgb_NHW3)).to(self.device)
        x_N3HW = x_N3HW.permute(0, 3, 1, 2).float() / 255
        below, right = -height % self.align_px, -width % self.align_px
        if below or right:
            # As RealESRGANer does; what is one pixel wide cannot be reflected.
            mode = "reflect" if min(height, width) > 1 else "replicate"
            x_N3HW = F.pad(x_N3HW, (0, right, 0, below), mode=mode)
        with inference(self.precision, self.device):
            y = network(x_N3HW)
        y = y[:, :, : self.scale * height, : self.scale * width]
        eight_bits = (y.clamp(0, 1) * 255).round().to(torch.uint8)
        return eight_bits.permute(0, 2, 3, 1).cpu().numpy()

    def _network(self, x_N3HW: Tensor) -> Tensor:
        # A permuted picture counts as channels-last already; its tiles, and fp32, are contiguous.
        layout = torch.channels_last if self.precision == "bf16" else torch.contiguous_format
        return self.network(x_N3HW.contiguous(memory_format=layout)).float()

    def _fitting(self, rgb_NHW3: np.ndarray) -> np.ndarray:
        """Enlarge a batch of pictures, fewer at a time where the memory does not hold them."""
        num, height, width = rgb_NHW3.shape[:3]
        work = Work(f"enlarging {width} x {height} px", _SETTING, _REMEDY)
        parts = in_batches(lambda rows: self._run(self._network, rgb_NHW3[rows]), num, num, work)
        return np.concatenate([part for _, part in parts])

    def _affordable(self, height: int, width: int, tile_px: int) -> int:
        """Return the side of a tile that keeps to the cap, at most `tile_px`."""
        if self.max_memory_mib is None:
            return tile_px
        needed = activation_bytes_per_px(self.channels_per_px)
        within = tile_px_for(
            self.max_memory_mib, height, width, self.scale, needed, self.halo_px, _FEATHER_PX,
            self.align_px,
        )  # fmt: skip
        return min(tile_px, within)

    def _tiled(self, rgb_HW3: np.ndarray, tile_px: int, batch_size: int) -> np.ndarray:
        """Enlarge one picture tile by tile; only the current row of tiles is in floats."""
        height, width = rgb_HW3.shape[:2]
        below, right = -height % self.align_px, -width % self.align_px
        mode = "reflect" if min(height, width) > 1 else "edge"
        padded = np.pad(rgb_HW3, ((0, below), (0, right), (0, 0)), mode=mode)
        plan = plan_tiles(
            height + below, width + right, tile_px, self.halo_px, _FEATHER_PX, self.align_px
        )

        def enlarge(tiles_N3HW: Tensor) -> Tensor:
            return self._network(tiles_N3HW.to(self.device).float() / 255)

        with inference(self.precision, self.device):
            x_3HW = torch.from_numpy(padded).permute(2, 0, 1)
            work = Work(
                f"enlarging tiles of {plan.tile_width} x {plan.tile_height} px", _SETTING, _REMEDY
            )
            out_HW3 = run_tiled_uint8(enlarge, x_3HW, plan, self.scale, batch_size, work=work)
        return out_HW3[: self.scale * height, : self.scale * width]


def load_esrgan(
    path: Path,
    arch: Literal["rrdbnet", "srvgg"],
    size: str,
    scale: int,
    device: "torch.device | str" = "cpu",
    precision: Precision = "fp32",
    max_memory_mib: int | None = None,
) -> SuperResolver:
    """Load weights strictly: a published checkpoint, or our own safetensors.

    Args:
        path: The weights.
        arch: Of the network.
        size: Of the network; a key of `SIZES`.
        scale: Of the network.
        device: Where it runs.
        precision: What it computes in; see `engine.choose_precision`.
        max_memory_mib: See `SuperResolver`.

    Raises:
        WeightsError: The file is absent, or does not fit the architecture.
        ConfigError: There is no such size.
    """
    if (arch, size) not in SIZES:
        raise ConfigError(f"Expected one of {sorted(SIZES)} as (arch, size); found {(arch, size)}.")
    network = build_esrgan(arch, size, scale)
    load_state(network, published_state(read_state(path)), str(path))
    network.eval().to(device)
    version = f"{hash_file(path)[:12]}-{CODE_VERSION}"
    if precision == "bf16":
        prepare_bf16(network)
    align = 2 if arch == "rrdbnet" and scale == 2 else 1
    dims = SIZES[arch, size]
    widest = dims.num_features * scale**2
    if arch == "srvgg":  # it enlarges only at its very end, into three channels
        widest = max(dims.num_features, 3 * scale**2)
    return SuperResolver(
        network, scale, dims.halo_px, align, version + tag(precision), precision, widest,
        max_memory_mib,
    )  # fmt: skip


def prepare_bf16(network: nn.Module) -> None:
    """Lay the weights out channels last, and let the picture itself be made in fp32."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # RRDBNet's last convolution; SRVGG's pixel shuffle, after which the input is added.
    last = "conv_last" if hasattr(network, "conv_last") else "upsampler"
    setattr(network, last, InFp32(getattr(network, last)))
