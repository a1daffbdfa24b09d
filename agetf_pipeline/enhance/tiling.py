"""Tiles of one size over an image of any size: halo discarded, seams feathered, memory bounded.

A network's output near a tile's edge lacks context. The outer `halo_px` of every inner edge are
therefore thrown away, and over the next `feather_px` one tile fades into its neighbour. Edges that
are edges of the image keep everything. All tiles of an image have one size, so that they batch.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from agetf_pipeline.core.errors import ConfigError


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
    return _join(iter([tiles_NCHW]), plan, scale)


def run_tiled(
    network: Callable[[Tensor], Tensor],
    image_CHW: Tensor,
    plan: TilePlan,
    scale: int,
    batch_size: int,
) -> Tensor:
    """Run a network over an image tile by tile; only `batch_size` tiles are in memory at a time.

    Args:
        network: float (N, C, h, w) to float (N, C', scale * h, scale * w).
        image_CHW: float.
        plan: From `plan_tiles` for this image.
        scale: Of the network.
        batch_size: Tiles a call.

    Returns:
        float (C', scale * height, scale * width).
    """

    def outputs() -> Iterator[Tensor]:
        for start in range(0, len(plan.corners), batch_size):
            corners = plan.corners[start : start + batch_size]
            yield network(torch.stack([_cut(image_CHW, plan, corner) for corner in corners]))

    return _join(outputs(), plan, scale)


def _join(batches: Iterator[Tensor], plan: TilePlan, scale: int) -> Tensor:
    total = weights = None
    corners = iter(plan.corners)
    for batch in batches:
        for tile_CHW in batch:
            top, left = next(corners)
            if total is None or weights is None:
                shape = (scale * plan.height, scale * plan.width)
                total = tile_CHW.new_zeros((tile_CHW.shape[0], *shape))
                weights = tile_CHW.new_zeros(shape)
            rows = slice(scale * top, scale * (top + plan.tile_height))
            columns = slice(scale * left, scale * (left + plan.tile_width))
            vertical = _ramp(top, plan.tile_height, plan.height, plan, scale)
            horizontal = _ramp(left, plan.tile_width, plan.width, plan, scale)
            weight_HW = (vertical[:, None] * horizontal[None, :]).to(tile_CHW)
            # Where a weight is zero the value is the halo's: it must not even carry a NaN over.
            total[:, rows, columns] += torch.where(weight_HW > 0, tile_CHW * weight_HW, 0)
            weights[rows, columns] += weight_HW
    assert total is not None
    assert weights is not None
    return total / weights


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


def _ramp(start: int, tile: int, length: int, plan: TilePlan, scale: int) -> Tensor:
    """Blending weight along one side of a tile: 0 in the halo, rising over the feather, then 1."""
    weight = torch.ones(scale * tile, dtype=torch.float64)
    halo, feather = scale * plan.halo_px, scale * plan.feather_px
    rise = torch.cat(
        [torch.zeros(halo), (torch.arange(feather, dtype=torch.float64) + 1) / (feather + 1)]
    )[: scale * tile].to(weight)
    if start > 0:
        weight[: rise.numel()] *= rise
    if start + tile < length:
        weight[weight.numel() - rise.numel() :] *= rise.flip(0)
    return weight
