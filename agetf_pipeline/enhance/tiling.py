"""Tiles of one size over an image of any size: halo discarded, seams feathered, memory bounded.

A network's output near a tile's edge lacks context. The outer `halo_px` of every inner edge are
therefore thrown away, and over the next `feather_px` one tile fades into its neighbour. Edges that
are edges of the image keep everything. All tiles of an image have one size, so that they batch.

Tiles are joined strip by strip: as soon as the next row of tiles begins, everything above it is
final and is handed out, and only what that row still blends into stays in float.
"""

import bisect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.core.errors import ConfigError

_INPUT_BYTES_PER_PX = 3 + 2 * 3 * 4
"""A tile's pixels as they were, as floats, and divided by 255."""
_ALLOCATOR = 1.15
"""What the process takes for what is asked of it: blocks do not fit the gaps that others leave."""


@dataclass(frozen=True)
class TilePlan:
    """Where the tiles of one image lie. Sizes are pixels of the input.

    Attributes:
        height: Of the image.
        width: Of the image.
        tile_height: Of every tile, halo included.
        tile_width: Of every tile, halo included.
        tops: First row of each row of tiles.
        lefts: First column of each column of tiles.
        halo_px: Discarded at inner edges.
        feather_px: Blended at inner edges, after the halo.
    """

    height: int
    width: int
    tile_height: int
    tile_width: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    halo_px: int
    feather_px: int

    @cached_property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of every tile, row by row."""
        return [(top, left) for top in self.tops for left in self.lefts]


def plan_tiles(
    height: int, width: int, tile_px: int, halo_px: int, feather_px: int, align_px: int = 1
) -> TilePlan:
    """Lay equal tiles over an image.

    Args:
        height: Of the image, a multiple of `align_px`.
        width: Of the image, a multiple of `align_px`.
        tile_px: Side of a tile, halo included; an image not larger than it is one tile.
        halo_px: Discarded at inner edges; at least the network's receptive radius for results
            equal to the untiled ones.
        feather_px: Width of the blend.
        align_px: Tiles start at multiples of it (2 for a network that pixel-unshuffles by 2).

    Raises:
        ConfigError: A tile has no room beside its halo and feather, or sizes are not aligned.
    """
    for name, value in (("height", height), ("width", width), ("tile_px", tile_px)):
        if value % align_px:
            raise ConfigError(f"Expected {name} in multiples of {align_px} px; found {value}.")
    if tile_px - 2 * halo_px - feather_px < align_px:
        raise ConfigError(
            f"Expected tiles wider than two halos of {halo_px} px and a feather of {feather_px} px;"
            f" found enhance.tile_px={tile_px}. Make the tiles larger."
        )
    stride = (tile_px - 2 * halo_px - feather_px) // align_px * align_px
    tile_height, tops = _starts(height, tile_px, stride, align_px)
    tile_width, lefts = _starts(width, tile_px, stride, align_px)
    return TilePlan(height, width, tile_height, tile_width, tops, lefts, halo_px, feather_px)


def cut_tiles(image_CHW: Tensor, plan: TilePlan) -> Tensor:
    """Return all tiles of an image, (N, C, tile height, tile width), in the order of `corners`."""
    return torch.stack([_cut(image_CHW, plan, corner) for corner in plan.corners])


def join_tiles(tiles_NCHW: Tensor, plan: TilePlan, scale: int = 1) -> Tensor:
    """Put tiles together; the inverse of `cut_tiles` for scale 1.

    Args:
        tiles_NCHW: float, every tile's output, `scale` times the size of its input.
        plan: The plan that they were cut by.
        scale: Of the network between cutting and joining.

    Returns:
        float (C, scale * height, scale * width).
    """
    return _whole(_strips(iter([tiles_NCHW]), plan, scale), plan, scale)


def run_tiled(
    network: Callable[[Tensor], Tensor],
    image_CHW: Tensor,
    plan: TilePlan,
    scale: int,
    batch_size: int,
) -> Tensor:
    """Run a network over an image tile by tile; the result is held in float, whole.

    Args:
        network: (N, C, h, w) to float (N, C', scale * h, scale * w).
        image_CHW: Of any type that the network takes.
        plan: From `plan_tiles` for this image.
        scale: Of the network.
        batch_size: Tiles a call.

    Returns:
        float (C', scale * height, scale * width).
    """
    outputs = _outputs(network, image_CHW, plan, batch_size)
    return _whole(_strips(outputs, plan, scale), plan, scale)


def run_tiled_uint8(
    network: Callable[[Tensor], Tensor],
    image_CHW: Tensor,
    plan: TilePlan,
    scale: int,
    batch_size: int,
    out: np.ndarray | None = None,
    work: Work | None = None,
) -> np.ndarray:
    """Run a network over an image tile by tile, in memory that `tile_px_for` foresees.

    Args:
        network: (N, C, h, w) to float (N, 3, scale * h, scale * w), 0 to 1; clipped beyond.
        image_CHW: Of any type that the network takes. uint8 saves memory where the network, or a
            function around it, divides by 255.
        plan: From `plan_tiles` for this image.
        scale: Of the network.
        batch_size: Tiles a call.
        out: Where to write, for example a memory map: uint8 (scale * height, scale * width, 3).
        work: Names it where the memory does not hold `batch_size` tiles; fewer are then done.

    Returns:
        `out`, or a new array of that shape: the clipped and rounded values of `run_tiled`.
    """
    if out is None:
        out = np.empty((scale * plan.height, scale * plan.width, 3), np.uint8)
    row = 0
    for strip_CHW in _strips(_outputs(network, image_CHW, plan, batch_size, work), plan, scale):
        eight_bits = strip_CHW.clamp_(0, 1).mul_(255).round_().to(torch.uint8).cpu()
        out[row : row + eight_bits.shape[1]] = eight_bits.permute(1, 2, 0).numpy()
        row += eight_bits.shape[1]
    return out


def tile_px_for(
    max_memory_mib: float,
    height: int,
    width: int,
    scale: int,
    network_bytes_per_px: float,
    halo_px: int,
    feather_px: int,
    align_px: int = 1,
    batch_size: int = 1,
) -> int:
    """Return the largest tile with which `run_tiled_uint8` stays within a memory cap.

    Args:
        max_memory_mib: What super-resolving may take beside what the process holds already; the
            picture and its enlargement, both uint8, count.
        height: Of the image.
        width: Of the image.
        scale: Of the network.
        network_bytes_per_px: Of the network's intermediate results at their peak, for each pixel
            of its input; see `activation_bytes_per_px`.
        halo_px: As for `plan_tiles`.
        feather_px: As for `plan_tiles`.
        align_px: As for `plan_tiles`.
        batch_size: Tiles a call.

    Returns:
        Side of a tile in pixels, a multiple of `align_px`, never more than the image needs.

    Raises:
        ConfigError: Not even tiles without room for anything but a halo would fit.
    """
    smallest = -(-(2 * halo_px + feather_px + align_px) // align_px) * align_px

    def needed_mib(tile_px: int) -> float:
        return _needed_mib(tile_px, height, width, scale, network_bytes_per_px, batch_size)

    largest = max(smallest, -(-max(height, width) // align_px) * align_px)
    sides = range(smallest, largest + 1, align_px)
    num_fitting = bisect.bisect_right(sides, max_memory_mib, key=needed_mib)
    if not num_fitting:
        raise ConfigError(
            f"Expected a memory cap of at least {math.ceil(needed_mib(smallest))} MiB for an image "
            f"of {width} x {height} px enlarged {scale} times; found {max_memory_mib:g} MiB. Raise "
            "the cap, or lower enhance.batch_size."
        )
    return sides[num_fitting - 1]


def whole_mib(height: int, width: int, scale: int, network_bytes_per_px: float) -> float:
    """Return a bound on what enlarging one image without tiles takes, as `tile_px_for` counts."""
    return _needed_mib(max(height, width), height, width, scale, network_bytes_per_px, 1)


def _needed_mib(
    tile_px: int,
    height: int,
    width: int,
    scale: int,
    network_bytes_per_px: float,
    batch_size: int,
) -> float:
    tile_height, tile_width = min(tile_px, height), min(tile_px, width)
    tiles = batch_size * tile_height * tile_width * (network_bytes_per_px + _INPUT_BYTES_PER_PX)
    # In float32: three planes of every tile's result and one of weights; the same of a strip,
    # a fourth of which is rounded to 8 bits.
    tiles += 4 * scale**2 * tile_height * tile_width * (3 * batch_size + 1)
    strip = 5 * 4 * scale**2 * tile_height * width
    images = 3 * height * width * (1 + scale**2)
    return _ALLOCATOR * (tiles + strip + images) / 2**20


def activation_bytes_per_px(channels_per_px: int) -> int:
    """Return a bound on what a network holds at its peak for each pixel of its input, in bytes.

    Five float32 maps of its widest layer: a convolution's input, its output, what the activation
    makes of it, and room for how convolutions are computed. Measured on a CPU, fp32, in such maps:
    RRDBNet x4 3.4 and x2 4.6, SRVGG x4 3.2, the tiny networks up to 5; bf16 takes less than half.

    Args:
        channels_per_px: Channels of the widest layer for each pixel of the input: a layer of 64
            channels at four times the input's sides counts 1024.
    """
    return 5 * 4 * channels_per_px


def _outputs(
    network: Callable[[Tensor], Tensor],
    image_CHW: Tensor,
    plan: TilePlan,
    batch_size: int,
    work: Work | None = None,
) -> Iterator[Tensor]:
    """Batches of tiles after the network."""

    def run(part: slice) -> Tensor:
        corners = plan.corners[part]
        tiles_NCHW = torch.stack([_cut(image_CHW, plan, corner) for corner in corners])
        with torch.no_grad():
            return network(tiles_NCHW)

    work = work or Work(f"tiles of {plan.tile_width} x {plan.tile_height} px")
    for _, output_NCHW in in_batches(run, len(plan.corners), batch_size, work):
        yield output_NCHW


def _strips(batches: Iterator[Tensor], plan: TilePlan, scale: int) -> Iterator[Tensor]:
    """Yield the joined result from top to bottom, float (C, rows, scale * width).

    A strip may be changed by who receives it, and is gone once the next one is asked for.
    """
    total_CHW = weights_HW = None
    corners, current = iter(plan.corners), 0
    for batch in batches:
        for tile_CHW in batch.detach():
            top, left = next(corners)
            if total_CHW is None or weights_HW is None:
                # Half precision would round the sum of what was rounded already.
                dtype = torch.promote_types(tile_CHW.dtype, torch.float32)
                shape = (scale * plan.tile_height, scale * plan.width)
                total_CHW = tile_CHW.new_zeros((tile_CHW.shape[0], *shape), dtype=dtype)
                weights_HW = tile_CHW.new_zeros(shape, dtype=dtype)
            if top > current:
                finished = scale * (top - current)
                yield total_CHW[:, :finished].div_(weights_HW[:finished])
                for buffer in (total_CHW, weights_HW[None]):
                    kept = buffer[:, finished:].clone()
                    buffer[:, : kept.shape[1]] = kept
                    buffer[:, kept.shape[1] :] = 0
                current = top
            rows, vertical = _kept(top, plan.tile_height, plan.height, plan, scale)
            columns, horizontal = _kept(left, plan.tile_width, plan.width, plan, scale)
            weight_HW = torch.outer(vertical.to(weights_HW), horizontal.to(weights_HW))
            inner_CHW = tile_CHW[:, rows, columns].to(weights_HW.dtype)
            across = slice(scale * left + columns.start, scale * left + columns.stop)
            # In place: a tile is large, and no second one of its size is made.
            total_CHW[:, rows, across].addcmul_(inner_CHW, weight_HW)
            weights_HW[rows, across] += weight_HW
    assert total_CHW is not None
    assert weights_HW is not None
    yield total_CHW.div_(weights_HW)


def _whole(strips: Iterator[Tensor], plan: TilePlan, scale: int) -> Tensor:
    """Return all strips as one tensor; they are copied, because they do not last."""
    whole_CHW, row = None, 0
    for strip_CHW in strips:
        if whole_CHW is None:
            shape = (strip_CHW.shape[0], scale * plan.height, scale * plan.width)
            whole_CHW = strip_CHW.new_empty(shape)
        whole_CHW[:, row : row + strip_CHW.shape[1]] = strip_CHW
        row += strip_CHW.shape[1]
    assert whole_CHW is not None
    return whole_CHW


def _cut(image_CHW: Tensor, plan: TilePlan, corner: tuple[int, int]) -> Tensor:
    top, left = corner
    return image_CHW[:, top : top + plan.tile_height, left : left + plan.tile_width]


def _starts(length: int, tile: int, stride: int, align: int) -> tuple[int, tuple[int, ...]]:
    """Size and evenly spread starts of the tiles along one side."""
    if length <= tile:
        return length, (0,)
    steps = math.ceil((length - tile) / stride)
    last = length - tile
    starts = [round(last * i / steps / align) * align for i in range(steps)]
    return tile, (*starts, last)


def _kept(start: int, tile: int, length: int, plan: TilePlan, scale: int) -> tuple[slice, Tensor]:
    """Which part of a tile's side is used, and its blending weights: rising over the feather to 1.

    The halo is cut away, not weighed by zero: it must not even carry a NaN over.
    """
    halo, feather = scale * plan.halo_px, scale * plan.feather_px
    rise = (torch.arange(feather, dtype=torch.float64) + 1) / (feather + 1)
    part = slice(halo if start > 0 else 0, scale * tile - (halo if start + tile < length else 0))
    weight = torch.ones(part.stop - part.start, dtype=torch.float64)
    rise = rise[: weight.numel()]
    if start > 0:
        weight[: rise.numel()] *= rise
    if start + tile < length:
        weight[weight.numel() - rise.numel() :] *= rise.flip(0)
    return part, weight
