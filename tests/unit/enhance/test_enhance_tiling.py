"""A large image in tiles: equal to the whole, without seams, and within its memory."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.enhance.basicsr_compat import srvgg_class
from agetf_pipeline.enhance.tiling import (
    activation_bytes_per_px,
    cut_tiles,
    plan_tiles,
    run_tiled,
    run_tiled_uint8,
    tile_px_for,
)

HEIGHT, WIDTH, SCALE = 1500, 2000, 2
RADIUS = 6
"""Of the network below: six convolutions of 3 x 3."""


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A small SRVGG with random weights, whose answer visibly depends on its whole context."""
    torch.manual_seed(0)
    module = srvgg_class()(num_feat=8, num_conv=4, upscale=SCALE).eval()
    with torch.no_grad():
        for layer in module.body:
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(1.5)
    return module


def _photograph(height: int, width: int) -> Tensor:
    """Slow waves, edges and grain, uint8 (3, height, width)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = torch.stack([torch.sin(rows / r) + torch.cos(columns / c) for r, c in (
        (90, 160), (140, 70), (50, 230),
    )])  # fmt: skip
    edges = 0.3 * ((rows // 37 + columns // 53) % 2)
    grain = 0.1 * torch.rand((3, height, width), generator=torch.Generator().manual_seed(3))
    return ((waves / 8 + edges + grain + 0.3).clamp(0, 1) * 255).to(torch.uint8)


def _on_bytes(network: nn.Module):
    return lambda tiles_NCHW: network(tiles_NCHW.float() / 255)


def _levels(output_CHW: Tensor) -> np.ndarray:
    return (output_CHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def whole(network) -> np.ndarray:
    with torch.inference_mode():
        return _levels(_on_bytes(network)(_photograph(HEIGHT, WIDTH)[None])[0])


def _tiled(network: nn.Module, halo_px: int, feather_px: int, tile_px: int = 384) -> np.ndarray:
    plan = plan_tiles(HEIGHT, WIDTH, tile_px, halo_px, feather_px)
    return run_tiled_uint8(_on_bytes(network), _photograph(HEIGHT, WIDTH), plan, SCALE, 2)


def _largest_steps(rgb: np.ndarray, axis: int) -> np.ndarray:
    """Largest difference of neighbours across each line between two rows or columns, of 255."""
    other = 1 - axis
    return np.abs(np.diff(rgb.astype(np.int16), axis=axis)).max(axis=(other, 2))


def test_a_large_image_in_tiles_equals_the_whole_without_seams(network, whole):
    assert whole.std() > 20
    assert ((whole > 0) & (whole < 255)).mean() > 0.8
    tiled = _tiled(network, halo_px=8, feather_px=8)
    assert tiled.shape == (SCALE * HEIGHT, SCALE * WIDTH, 3)
    # Beyond the halo's reach every value has its whole context: the borders are equal too.
    assert np.abs(tiled.astype(np.int16) - whole).max() <= 1
    for axis in (0, 1):
        assert (_largest_steps(tiled, axis) <= _largest_steps(whole, axis) + 1).all()


def test_without_a_halo_the_comparison_notices(network, whole):
    tiled = _tiled(network, halo_px=0, feather_px=0)
    assert np.abs(tiled.astype(np.int16) - whole).max() > 1
    grown = _largest_steps(tiled, 0) - _largest_steps(whole, 0)
    seams = SCALE * np.array(plan_tiles(HEIGHT, WIDTH, 384, 0, 0).tops[1:]) - 1
    assert grown[seams].max() > 1


def test_a_feather_softens_what_too_small_a_halo_leaves(network):
    """On a smooth picture a hard seam shows as one step; a feather spreads the same change."""
    picture = F.interpolate(torch.rand(1, 3, 4, 4), (120, 120), mode="bicubic")[0].clamp(0, 1)

    def largest_excess(feather_px: int) -> float:
        plan = plan_tiles(120, 120, 48, 1, feather_px)
        with torch.inference_mode():
            steps = run_tiled(network, picture, plan, SCALE, 4).diff(dim=1).abs()
            own = network(picture[None])[0].diff(dim=1).abs()
        return float((steps.amax((0, 2)) - own.amax((0, 2))).max())

    assert largest_excess(8) < 0.5 * largest_excess(0)


def test_strips_hold_what_the_float_result_rounds_to(network, tmp_path):
    image = _photograph(97, 131)
    for tile_px, halo_px in ((32, 7), (41, 6), (97, 6), (200, 6)):
        plan = plan_tiles(97, 131, tile_px, halo_px, 5)
        expected = _levels(run_tiled(_on_bytes(network), image, plan, SCALE, 3))
        assert np.array_equal(run_tiled_uint8(_on_bytes(network), image, plan, SCALE, 3), expected)
    shape = (SCALE * 97, SCALE * 131, 3)
    mapped = np.memmap(tmp_path / "enlarged", np.uint8, "w+", shape=shape)
    given = run_tiled_uint8(_on_bytes(network), image, plan, SCALE, 3, out=mapped)
    assert given is mapped
    assert np.array_equal(mapped, expected)


def test_half_precision_tiles_are_joined_in_float32():
    plan = plan_tiles(40, 40, 16, 3, 4)
    image = torch.rand(3, 40, 40).bfloat16()
    joined = run_tiled(lambda tiles: tiles, image, plan, 1, 4)
    assert joined.dtype == torch.float32
    torch.testing.assert_close(joined, image.float(), atol=1e-6, rtol=0)
    assert cut_tiles(image, plan).dtype == torch.bfloat16


def test_the_largest_tile_within_a_cap():
    cost = activation_bytes_per_px(64 * 16)
    common = {"scale": 4, "network_bytes_per_px": cost, "halo_px": 16, "feather_px": 8}
    sides = [tile_px_for(mib, HEIGHT, WIDTH, **common) for mib in (512, 1024, 4096)]
    assert sides == sorted(set(sides))
    for mib, side in zip((512, 1024, 4096), sides, strict=True):
        assert side * side * cost < mib * 2**20
        plan_tiles(HEIGHT, WIDTH, side, 16, 8)
    assert tile_px_for(4096, HEIGHT, WIDTH, **common, batch_size=4) < sides[-1]
    assert tile_px_for(10**6, HEIGHT, WIDTH, **common) == WIDTH
    assert tile_px_for(10**6, 33, 29, **common, align_px=2) == 42
    assert tile_px_for(1024, HEIGHT, WIDTH, **common, align_px=2) % 2 == 0
    with pytest.raises(ConfigError, match=r"at least \d+ MiB for an image of 2000 x 1500 px"):
        tile_px_for(64, HEIGHT, WIDTH, **common)


_MEASURE = """
import json, sys
import torch
from torch import nn
from agetf_pipeline.enhance.tiling import (
    activation_bytes_per_px, plan_tiles, run_tiled_uint8, tile_px_for,
)

height, width, scale, cap_mib = json.loads(sys.argv[1])
torch.set_num_threads(1)

def peak_mib(work):
    def read(name):
        line = next(x for x in open("/proc/self/status") if x.startswith(name))
        return int(line.split()[1]) / 1024
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts from what is held now
    before = read("VmRSS")
    work()
    return read("VmHWM") - before

network = nn.Sequential(
    nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(),
    nn.Conv2d(12, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale),
)
on_bytes = lambda x: network(x.float() / 255)
cost = activation_bytes_per_px(3 * scale**2)

def tiled():
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    tile_px = tile_px_for(cap_mib, height, width, scale, cost, 8, 8)
    plan = plan_tiles(height, width, tile_px, 8, 8)
    run_tiled_uint8(on_bytes, image, plan, scale, 1)

def whole():
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    with torch.inference_mode():
        (on_bytes(image[None])[0].clamp(0, 1) * 255).round().to(torch.uint8)

with torch.inference_mode():
    on_bytes(torch.zeros((1, 3, 64, 64), dtype=torch.uint8))
print(json.dumps([peak_mib(tiled), peak_mib(whole)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_a_large_image_stays_within_its_memory_cap_where_the_whole_does_not():
    """Not by getrusage: a new process inherits its parent's peak there."""
    cap_mib = 192
    arguments = json.dumps([HEIGHT, WIDTH, SCALE, cap_mib])
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, arguments], capture_output=True, text=True, check=True
    )
    tiled_mib, whole_mib = json.loads(done.stdout)
    # The enlargement alone takes 34 MiB: it is measured, and it is no idle cap.
    assert 34 < tiled_mib < cap_mib < whole_mib
