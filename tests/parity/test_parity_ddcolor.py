"""Our DDColor beside the official pipeline: same random weights, same pictures, official numbers.

What the numbers are and how they were made: docs/golden_values.md.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ddcolor_cases import AB_STRIDE, PICTURES, PIXEL_STRIDE, published_shapes, published_state
from torch import Tensor
from torch.nn import functional as F

from agetf_pipeline.enhance.colour import Colouriser, grey_input, join_colour, load_ddcolor
from agetf_pipeline.enhance.ddcolor import SIZES, DDColor, from_published

MAX_LEVELS = 2
"""Of 255, end to end."""
MAX_AB = 2e-3
"""Of the network alone, in units of Lab; colours reach about 50."""
SIZE = "base"
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "ddcolor.json").read_text())
INPUT_PX: int = GOLDEN["input_px"]
ATTENTION = (
    "decoder.color_decoder.transformer_cross_attention_layers.4.multihead_attn.in_proj_weight"
)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in published_state(SIZE).items()}


def _load(state: dict[str, Tensor], folder: Path) -> Colouriser:
    """By way of a checkpoint in the published form."""
    path = folder / "ddcolor.pth"
    torch.save({"params": state}, path)
    colouriser = load_ddcolor(path, SIZE, INPUT_PX)
    path.unlink()  # pytest keeps its folders; this one would be 220 MB
    return colouriser


@pytest.fixture(scope="module")
def colouriser(state, tmp_path_factory) -> Colouriser:
    return _load(state, tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def ab(colouriser) -> dict[str, np.ndarray]:
    """The network's answers to two of the pictures, float32 (2, h, w)."""
    return {name: _predict(colouriser, name) for name in ("grey_96x80", "colour_300x257")}


def _predict(colouriser: Colouriser, name: str) -> np.ndarray:
    grey = torch.from_numpy(grey_input(PICTURES[name].rgb(), INPUT_PX))
    device = next(colouriser.network.parameters()).device
    with torch.inference_mode():
        ab = colouriser.network(grey.permute(2, 0, 1)[None].contiguous().to(device))
    return ab[0].float().cpu().numpy()


def _levels(rgb: np.ndarray, name: str) -> int:
    """Largest difference from the official picture at the kept pixels, of 255."""
    kept = rgb[:: PIXEL_STRIDE[0], :: PIXEL_STRIDE[1]].astype(int)
    golden = np.array(GOLDEN["cases"][name]["rgb"]).reshape(kept.shape)
    return int(np.abs(kept - golden).max())


def _ab_difference(ab_2hw: np.ndarray, name: str) -> float:
    kept = ab_2hw[:, :: AB_STRIDE[0], :: AB_STRIDE[1]]
    golden = np.array(GOLDEN["cases"][name]["ab"]).reshape(kept.shape)
    return float(np.abs(kept - golden).max())


@pytest.mark.parametrize("size", ["base", "large"])
def test_official_names_and_shapes_become_ours_without_remainder(size):
    with torch.device("meta"):
        ours = {name: tuple(t.shape) for name, t in DDColor(SIZES[size]).state_dict().items()}
        official = {name: torch.empty(shape) for name, shape in published_shapes(size).items()}
    assert {name: tuple(t.shape) for name, t in from_published(official).items()} == ours


def test_pictures_are_coloured_as_officially(colouriser):
    pictures = [picture.rgb() for picture in PICTURES.values()]
    coloured = colouriser(pictures)
    for (name, picture), rgb in zip(PICTURES.items(), coloured, strict=True):
        assert rgb.shape == (picture.height, picture.width, 3)
        assert rgb.dtype == np.uint8
        assert _levels(rgb, name) <= MAX_LEVELS, name


def test_the_network_alone_predicts_the_official_colour(ab):
    for name, ab_2hw in ab.items():
        golden = GOLDEN["cases"][name]
        assert _ab_difference(ab_2hw, name) <= MAX_AB
        mean, std = ab_2hw.mean((1, 2), dtype=np.float64), ab_2hw.std((1, 2), dtype=np.float64)
        np.testing.assert_allclose(mean, golden["ab_mean"], atol=MAX_AB)
        np.testing.assert_allclose(std, golden["ab_std"], atol=MAX_AB)


def test_the_golden_colours_are_worth_comparing():
    """Neither near grey nor at the edge of what sRGB holds, and different for each picture."""
    for golden in GOLDEN["cases"].values():
        assert min(golden["ab_std"]) > 2
        assert np.abs(golden["ab"]).max() < 80
        assert np.isin(golden["rgb"], (0, 255)).mean() < 0.05
        rgb = np.array(golden["rgb"]).reshape(-1, 3)
        assert np.median(rgb.max(axis=1) - rgb.min(axis=1)) > 20
    first, *others = [np.array(golden["ab"]) for golden in GOLDEN["cases"].values()]
    assert all(np.abs(first - other).max() > 100 * MAX_AB for other in others)


def _bilinear(rgb: np.ndarray, ab_2hw: np.ndarray) -> np.ndarray:
    resized = F.interpolate(torch.from_numpy(ab_2hw)[None], rgb.shape[:2], mode="bilinear")
    return join_colour(rgb, resized[0].numpy())


def _power_2_2(rgb: np.ndarray, ab_2hw: np.ndarray) -> np.ndarray:
    """Both ways with the power that is often taken for the curve of sRGB."""
    lab = cv2.cvtColor(((rgb / 255) ** 2.2).astype(np.float32), cv2.COLOR_LRGB2Lab)
    lab[..., 1:] = F.interpolate(torch.from_numpy(ab_2hw)[None], rgb.shape[:2])[0].permute(1, 2, 0)
    linear = cv2.cvtColor(lab, cv2.COLOR_Lab2LRGB).clip(0, 1)
    return (255 * linear ** (1 / 2.2)).round().astype(np.uint8)


def _lightness_at_the_networks_size(rgb: np.ndarray, ab_2hw: np.ndarray) -> np.ndarray:
    small = join_colour(cv2.resize(rgb, ab_2hw.shape[:0:-1]), ab_2hw)
    return cv2.resize(small, rgb.shape[1::-1])


@pytest.mark.parametrize(
    "finish",
    [
        _bilinear,
        _power_2_2,
        _lightness_at_the_networks_size,
        lambda rgb, ab: join_colour(rgb, ab[::-1].copy()),
    ],
    ids=["bilinear", "power_2.2", "small_lightness", "b_before_a"],
)
def test_another_way_to_the_picture_is_noticed(
    ab, finish: Callable[[np.ndarray, np.ndarray], np.ndarray]
):
    for name, ab_2hw in ab.items():
        rgb = PICTURES[name].rgb()
        assert _levels(join_colour(rgb, ab_2hw), name) <= MAX_LEVELS
        assert _levels(finish(rgb, ab_2hw), name) > MAX_LEVELS


def test_another_weight_is_noticed(state, tmp_path):
    changed = _load(state | {ATTENTION: state[ATTENTION] * 1.1}, tmp_path)
    assert _ab_difference(_predict(changed, "grey_96x80"), "grey_96x80") > 2 * MAX_AB
