"""Odd files on their way into enhancement: read as meant and coloured, or quarantined and why."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from png_files import png_16

from agetf_pipeline.config.enhance import EnhanceConfig
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.data.images import read_rgb
from agetf_pipeline.data.probe import Facts, Limits, Rejection, probe
from agetf_pipeline.enhance.colour import Colouriser, load_ddcolor, to_lab
from agetf_pipeline.enhance.ddcolor import SIZES, DDColor
from agetf_pipeline.enhance.decide import Decision, decide
from agetf_pipeline.enhance.measures import measure

HEIGHT, WIDTH = 98, 76
MAX_L = 0.5
"""What rounding to 8 bits can change of L (0 to 100), with a little of Lab's own rounding."""
CONFIG = EnhanceConfig(target_px=128)


@pytest.fixture(scope="module")
def colouriser(tmp_path_factory) -> Colouriser:
    """Random weights whose colours are moderate: no sRGB colour is out of reach and clipped."""
    torch.manual_seed(4)
    network = DDColor(SIZES["tiny"])
    with torch.no_grad():
        for _ in range(5):
            network(torch.rand(2, 3, 64, 64))  # spectral norms take a few steps to be right
        assert network.refine.bias is not None
        network.refine.bias.copy_(torch.tensor([9.0, 7.0]))
    path = tmp_path_factory.mktemp("weights") / "ddcolor.safetensors"
    save_weights(path, network.eval(), {})
    return load_ddcolor(path, "tiny", 32)


def _wedge() -> np.ndarray:
    """Every step of 16-bit grey between a fifth and four fifths, and grain of one pixel."""
    steps = np.linspace(0.2, 0.8, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    rows, columns = np.indices((HEIGHT, WIDTH))
    return ((steps + 0.06 * ((rows + columns) % 2)) * 65535).astype(np.uint16)


def _colourful() -> np.ndarray:
    rows, columns = np.indices((HEIGHT, WIDTH))
    planes = (40 + 2 * rows, 220 - 2 * columns, 60 + rows + columns)
    return np.stack(planes, axis=2).astype(np.uint8)


def _saved(picture: Image.Image, image_format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, image_format, **options)
    return stream.getvalue()


def _ingested(data: bytes, folder: Path) -> tuple[Facts, np.ndarray]:
    """What ingest says of a file, and the pixels that enhance reads of it."""
    path = folder / "original"
    path.write_bytes(data)
    result = probe(data, Limits())
    assert not isinstance(result, Rejection), result
    rgb = read_rgb(path)
    assert np.array_equal(rgb, result[1]), "enhance must see what ingest examined"
    assert rgb.dtype == np.uint8
    assert rgb.shape == (result[0].height_px, result[0].width_px, 3)
    return result[0], rgb


def _decision(rgb: np.ndarray) -> Decision:
    return decide(measure(rgb, CONFIG.target_px), CONFIG)


def _assert_lightness_kept(coloured: np.ndarray, original: np.ndarray) -> None:
    assert coloured.shape == original.shape
    lab = to_lab(coloured)
    assert np.abs(lab[..., 0] - to_lab(original)[..., 0]).max() < MAX_L
    assert np.hypot(lab[..., 1], lab[..., 2]).min() > 3, "it was not coloured"


def test_16_bit_grey_is_not_clipped_and_keeps_its_lightness_when_coloured(tmp_path, colouriser):
    facts, rgb = _ingested(_saved(Image.fromarray(_wedge())), tmp_path)
    assert {"converted_16_bit", "converted_grey"} <= set(facts.flags)
    assert facts.is_grey
    assert np.array_equal(rgb[..., 0], _wedge() >> 8)
    decision = _decision(rgb)
    assert decision.colourise
    assert "grey, colourfulness 0.0" in decision.reason
    # The network saw 32 x 32 px; the grain of one pixel is still there.
    _assert_lightness_kept(colouriser([rgb])[0], rgb)


def test_lightness_is_not_the_networks_to_give(colouriser):
    """The test above can fail: lightness at the network's size loses the grain."""
    rgb = np.repeat((_wedge() >> 8).astype(np.uint8)[..., None], 3, axis=2)
    small = cv2.resize(rgb, (32, 32))
    enlarged = cv2.resize(colouriser([small])[0], (WIDTH, HEIGHT))
    assert np.abs(to_lab(enlarged)[..., 0] - to_lab(rgb)[..., 0]).max() > 4 * MAX_L


def test_16_bit_colour_keeps_its_high_byte_and_its_colour(tmp_path):
    colours = _colourful().astype(np.uint16) << 8 | 0x5A
    facts, rgb = _ingested(png_16(colours, colour_type=2), tmp_path)
    assert "converted_16_bit" in facts.flags
    assert np.array_equal(rgb, _colourful())
    assert not _decision(rgb).colourise


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P"])
def test_grey_of_any_mode_is_coloured(tmp_path, colouriser, mode):
    grey = Image.fromarray((_wedge() >> 8).astype(np.uint8))
    facts, rgb = _ingested(_saved(grey.convert(mode)), tmp_path)
    assert facts.is_grey
    assert {"L": "converted_grey", "1": "converted_grey", "LA": "opaque_alpha_dropped"}.get(
        mode, "converted_palette"
    ) in facts.flags
    assert np.ptp(rgb, axis=2).max() == 0
    assert _decision(rgb).colourise
    if mode != "1":  # black and white cannot take colour
        _assert_lightness_kept(colouriser([rgb])[0], rgb)


def test_a_palette_of_colours_is_left_alone(tmp_path):
    picture = Image.fromarray(_colourful()).quantize(64)
    facts, rgb = _ingested(_saved(picture), tmp_path)
    assert "converted_palette" in facts.flags
    assert np.array_equal(rgb, np.asarray(picture.convert("RGB")))
    assert not _decision(rgb).colourise


def test_cmyk_keeps_its_colours_and_cmyk_grey_is_grey(tmp_path):
    for picture, is_grey in ((_colourful(), False), (np.full((98, 76, 3), 130, np.uint8), True)):
        cmyk = Image.fromarray(picture).convert("CMYK")
        facts, rgb = _ingested(_saved(cmyk, "JPEG", quality=98), tmp_path)
        assert (facts.mode, facts.is_grey) == ("CMYK", is_grey)
        assert "converted_cmyk" in facts.flags
        assert np.abs(rgb.astype(int) - picture).mean() < 4
        assert _decision(rgb).colourise == is_grey


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_rotated_photograph_is_enhanced_upright(tmp_path, colouriser, orientation):
    grey = np.repeat((_wedge() >> 8).astype(np.uint8)[..., None], 3, axis=2)
    turned = np.rot90(grey, {3: 2, 6: 1, 8: -1}[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _saved(Image.fromarray(np.ascontiguousarray(turned)), exif=exif)
    facts, rgb = _ingested(data, tmp_path)
    assert "exif_rotated" in facts.flags
    assert np.array_equal(rgb, grey)
    decision = _decision(rgb)
    assert (decision.output_height_px, decision.output_width_px) == (165, 128)
    _assert_lightness_kept(colouriser([rgb])[0], grey)


def _with_hole(opaque: int) -> np.ndarray:
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[5, 7] = opaque
    return alpha


def _grey_16_with_alpha(alpha: np.ndarray) -> bytes:
    return png_16(np.dstack([_wedge(), alpha.astype(np.uint16) * 257]), colour_type=4)


TRANSPARENT = {
    "RGBA": lambda alpha: _saved(Image.fromarray(np.dstack([_colourful(), alpha]))),
    "RGBA WebP": lambda alpha: _saved(
        Image.fromarray(np.dstack([_colourful(), alpha])), "WEBP", lossless=True
    ),
    "LA": lambda alpha: _saved(
        Image.fromarray(np.dstack([(_wedge() >> 8).astype(np.uint8), alpha]), "LA")
    ),
    "16-bit LA": _grey_16_with_alpha,
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_alpha_is_quarantined_where_it_lets_anything_through(tmp_path, kind):
    refused = probe(TRANSPARENT[kind](_with_hole(254)), Limits())
    assert isinstance(refused, Rejection)
    assert refused.reason == "transparent"
    assert "not opaque" in refused.detail
    if "WebP" in kind:  # an encoder leaves alpha out where all of it is opaque
        return
    facts, rgb = _ingested(TRANSPARENT[kind](_with_hole(255)), tmp_path)
    assert "opaque_alpha_dropped" in facts.flags
    assert _decision(rgb).colourise == ("LA" in kind)


def test_a_transparent_colour_of_a_palette_is_quarantined():
    picture = Image.fromarray(_colourful()).quantize(16)
    used = int(np.asarray(picture)[0, 0])
    refused = probe(_saved(picture, transparency=used), Limits())
    assert isinstance(refused, Rejection)
    assert refused.reason == "transparent"
