import numpy as np
import pytest
import torch
from torch.nn import functional as F

from agetf_pipeline.core.errors import ConfigError, WeightsError
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.enhance.colour import join_colour, load_ddcolor, to_lab, to_rgb
from agetf_pipeline.enhance.ddcolor import SIZES, DDColor, fold_spectral_norm, from_published
from agetf_pipeline.enhance.esrgan import build_esrgan, load_esrgan
from agetf_pipeline.enhance.training import (
    colour_loss,
    pixel_loss,
    start_as_enlargement,
    super_resolution_loss,
)

RNG = np.random.default_rng(0)


@pytest.fixture
def ddcolor() -> DDColor:
    torch.manual_seed(0)
    network = DDColor(SIZES["tiny"])
    with torch.no_grad():
        network(torch.rand(4, 3, 64, 64))  # batch norms away from their start
    return network.eval()


def test_ddcolor_gives_two_planes_of_the_inputs_size_for_each_picture_alone(ddcolor):
    pictures = torch.rand(3, 3, 64, 96)
    with torch.no_grad():
        together = ddcolor(pictures)
        alone = torch.cat([ddcolor(picture[None]) for picture in pictures])
    assert together.shape == (3, 2, 64, 96)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_folding_spectral_norms_changes_nothing(ddcolor):
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = ddcolor(picture)
        fold_spectral_norm(ddcolor)
        after = ddcolor(picture)
    torch.testing.assert_close(before, after, atol=1e-6, rtol=1e-5)
    assert not any("weight_orig" in name for name in ddcolor.state_dict())


PUBLISHED = {
    "encoder.downsample.0.0.weight": "encoder.arch.downsample_layers.0.0.weight",
    "encoder.norms.3.bias": "encoder.arch.norm3.bias",
    "encoder.stages.2.1.mlp.fc1.weight": "encoder.arch.stages.2.1.pwconv1.weight",
    "encoder.stages.0.0.gamma": "encoder.arch.stages.0.0.gamma",
    "decoder.blocks.1.up.conv.weight_u": "decoder.layers.1.shuf.conv.0.weight_u",
    "decoder.blocks.1.up.norm.running_var": "decoder.layers.1.shuf.conv.1.running_var",
    "decoder.blocks.0.norm.weight": "decoder.layers.0.conv.2.weight",
    "decoder.last.conv.bias": "decoder.last_shuf.conv.0.bias",
    "decoder.colours.layers.2.cross.in_proj_weight": (
        "decoder.color_decoder.transformer_cross_attention_layers.2.multihead_attn.in_proj_weight"
    ),
    "decoder.colours.layers.0.mlp_norm.bias": (
        "decoder.color_decoder.transformer_ffn_layers.0.norm.bias"
    ),
    "refine.weight_orig": "refine_net.0.0.weight_orig",
    "mean": "mean",
}


def test_published_names_become_ours(ddcolor):
    assert set(PUBLISHED) <= set(ddcolor.state_dict())
    state = {published: torch.zeros(1) for published in PUBLISHED.values()}
    unused = {"encoder.arch.norm.weight": torch.zeros(1)}
    assert set(from_published(state | unused)) == set(PUBLISHED)


@pytest.mark.parametrize(("size", "num_millions"), [("tiny", 0.52), ("base", 55), ("large", 228)])
def test_ddcolor_sizes(size, num_millions):
    with torch.device("meta"):
        network = DDColor(SIZES[size])
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert count == pytest.approx(num_millions, rel=0.1)


def test_lab_comes_back_and_lightness_is_kept():
    picture = RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    assert np.abs(to_rgb(to_lab(picture)).astype(int) - picture).max() <= 1
    # Colours within sRGB's reach at every lightness: none is clipped.
    grey = np.repeat(RNG.integers(80, 180, (40, 30, 1), dtype=np.uint8), 3, axis=2)
    coloured = join_colour(grey, np.full((2, 8, 8), 6.0, np.float32))
    np.testing.assert_allclose(to_lab(coloured)[..., 0], to_lab(grey)[..., 0], atol=0.4)
    np.testing.assert_allclose(to_lab(coloured)[..., 1:].mean(axis=(0, 1)), 6.0, atol=0.2)


def test_weights_are_loaded_strictly(tmp_path, ddcolor):
    path = tmp_path / "ddcolor.safetensors"
    save_weights(path, ddcolor, {"trained_on": "synthetic"})
    colouriser = load_ddcolor(path, "tiny", 64)
    results = colouriser([np.zeros((50, 70, 3), np.uint8), np.zeros((33, 20, 3), np.uint8)])
    assert [result.shape for result in results] == [(50, 70, 3), (33, 20, 3)]
    published = tmp_path / "published.pth"
    torch.save({"params": ddcolor.state_dict()}, published)
    assert load_ddcolor(published, "tiny", 64).input_px == 64
    with pytest.raises(WeightsError, match="Missing"):
        load_ddcolor(path, "base", 64)
    with pytest.raises(ConfigError, match="multiples of 32"):
        load_ddcolor(path, "tiny", 50)


@pytest.mark.parametrize(("arch", "scale"), [("rrdbnet", 2), ("rrdbnet", 4), ("srvgg", 2)])
def test_super_resolution_of_odd_sizes_and_in_tiles(tmp_path, arch, scale):
    torch.manual_seed(0)
    network = build_esrgan(arch, "tiny", scale)
    path = tmp_path / "esrgan.pth"
    # A stale copy beside the averaged one: the average is what counts.
    stale = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    torch.save({"params": stale, "params_ema": network.state_dict()}, path)
    resolver = load_esrgan(path, arch, "tiny", scale)
    images = RNG.integers(0, 256, (3, 71, 90, 3), dtype=np.uint8)
    whole = resolver(images, tile_px=256)
    assert whole.shape == (3, scale * 71, scale * 90, 3)
    assert whole.std() > 0
    tiled = resolver(images[:1], tile_px=64)
    assert np.abs(tiled[0].astype(int) - whole[0]).max() <= 1


def test_srvgg_starts_as_an_enlargement_that_reduces_to_the_picture():
    torch.manual_seed(0)
    network = build_esrgan("srvgg", "tiny", 2)
    start_as_enlargement(network, 2)
    coarse = torch.rand(1, 3, 6, 6)
    picture = F.interpolate(coarse, scale_factor=4, mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        enlarged = network(picture)
    exact = F.interpolate(picture, scale_factor=2, mode="bicubic")
    nearest = F.interpolate(picture, scale_factor=2, mode="nearest")
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    assert (enlarged - exact)[inside].abs().mean() < 0.5 * (nearest - exact)[inside].abs().mean()
    torch.testing.assert_close(F.avg_pool2d(enlarged, 2), picture, atol=0.05, rtol=0)


def test_a_perfect_answer_has_no_loss_and_the_loss_pulls_towards_it():
    target = torch.rand(2, 3, 8, 8)
    assert pixel_loss(target, target) == 0
    answer = torch.full_like(target, 2.0, requires_grad=True)
    pixel_loss(answer, target).backward()
    assert answer.grad is not None
    assert (answer.grad.sum(dim=(0, 2, 3)) > 0).all()


def test_losses_reach_every_parameter_and_depend_on_the_seed_alone(ddcolor):
    faces = RNG.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    resolver = build_esrgan("srvgg", "tiny", 2)
    for network, loss_of in (
        (ddcolor, colour_loss(ddcolor, faces)),
        (resolver, super_resolution_loss(resolver, faces, 2, 16)),
    ):
        indices = torch.tensor([0, 2, 4, 5])
        values = [loss_of(indices, torch.Generator().manual_seed(7)).item() for _ in range(2)]
        # Spectral norms do not move in evaluation mode: the same seed gives the same loss.
        assert values[0] == values[1]
        loss_of(indices, torch.Generator().manual_seed(7)).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
