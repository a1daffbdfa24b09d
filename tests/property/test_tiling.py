import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.enhance.tiling import cut_tiles, join_tiles, plan_tiles, run_tiled

SIDES = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(0, 3), st.integers(0, 4), st.integers(1, 12), st.integers(1, 3))
def test_joining_inverts_cutting(height, width, halo, feather, room, align):
    height, width = height * align, width * align
    tile = -(-(2 * halo + feather + room + align) // align) * align
    plan = plan_tiles(height, width, tile, halo, feather, align)
    image = torch.rand((2, height, width), generator=torch.Generator().manual_seed(0))
    tiles = cut_tiles(image, plan)
    assert len({tuple(tile.shape) for tile in tiles}) == 1
    assert all(top % align == 0 and left % align == 0 for top, left in plan.corners)
    torch.testing.assert_close(join_tiles(tiles, plan), image, atol=1e-6, rtol=0)
    eight_bits = (image * 255).round()
    assert torch.equal(join_tiles(cut_tiles(eight_bits, plan), plan).round(), eight_bits)


@settings(max_examples=15, deadline=None)
@given(st.integers(20, 60), st.integers(20, 60), st.integers(16, 24), st.integers(1, 5))
def test_a_tiled_network_equals_the_untiled_one(height, width, tile, batch_size):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(8, 12, 3, padding=1),
        nn.PixelShuffle(2),
    )  # fmt: skip
    image = torch.rand(3, height, width)
    with torch.no_grad():
        whole = network(image[None])[0]
        plan = plan_tiles(height, width, tile, halo_px=2, feather_px=4)
        tiled = run_tiled(network, image, plan, scale=2, batch_size=batch_size)
    # Even at the borders: tiles there see the same padding as the whole image does.
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


def test_the_halo_is_never_seen():
    plan = plan_tiles(30, 30, 16, halo_px=3, feather_px=2)
    tiles = cut_tiles(torch.ones(1, 30, 30), plan)
    for tile, (top, left) in zip(tiles, plan.corners, strict=True):
        if top > 0:
            tile[:, :3] = float("nan")
        if left > 0:
            tile[:, :, :3] = float("nan")
        if top + 16 < 30:
            tile[:, -3:] = float("nan")
        if left + 16 < 30:
            tile[:, :, -3:] = float("nan")
    assert torch.equal(join_tiles(tiles, plan), torch.ones(1, 30, 30))


def test_a_tile_without_room_is_refused():
    with pytest.raises(ConfigError, match="tile_px=16"):
        plan_tiles(64, 64, 16, halo_px=8, feather_px=4)
