"""Our ArcFace networks beside InsightFace's: same random weights, same pictures, official numbers.

What the numbers are and how they were made: docs/golden_values.md.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seeded_arrays import seeded_picture, seeded_state
from torch import Tensor

from agetf_pipeline.evaluation.arcface import BLOCKS, ArcFaceNet, read_published, to_rgb_input

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "arcface.json").read_text())


def _state(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        network = ArcFaceNet(BLOCKS[name])
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    # Slopes near 1 would make the network almost linear, and hide a misplaced one.
    gains = {key: 0.25 for key in shapes if key.endswith("prelu.weight")}
    return {key: torch.from_numpy(value) for key, value in seeded_state(shapes, gains).items()}


def _network(name: str, folder: Path, prefix: str = "") -> ArcFaceNet:
    """The network by way of a checkpoint as the official training writes it."""
    path = folder / "backbone.pth"
    torch.save({f"{prefix}{key}": tensor for key, tensor in _state(name).items()}, path)
    network, found = read_published(path)
    path.unlink()  # pytest keeps its folders; iresnet50 would be 175 MB
    assert found == name
    return network.eval()


def _pictures() -> Tensor:
    pictures = [seeded_picture(name, 112, 112) for name in GOLDEN["pictures"]]
    return torch.from_numpy(np.stack(pictures))


def test_pictures_are_prepared_as_officially():
    x_NCHW = to_rgb_input(_pictures())
    for y, x, values in GOLDEN["input"]["at"]:
        np.testing.assert_allclose(x_NCHW[:, :, y, x], values, atol=2e-6)


@pytest.mark.parametrize("name", GOLDEN["cases"])
def test_embeddings_are_the_official_ones(name: str, tmp_path: Path):
    golden, network = GOLDEN["cases"][name], _network(name, tmp_path)
    assert len(network.state_dict()) == golden["num_tensors"]
    with torch.inference_mode():
        long_ND = network.unnormalised(to_rgb_input(_pictures()))
        unit_ND = network(to_rgb_input(_pictures()))
    np.testing.assert_allclose(long_ND.norm(dim=1), golden["norm"], rtol=1e-5)
    np.testing.assert_allclose(unit_ND[:, ::8], golden["embedding_every_8th"], atol=2e-6)
    np.testing.assert_allclose(unit_ND @ unit_ND.T, golden["cosines"], atol=2e-6)


def test_a_checkpoint_of_several_processes_is_the_same_network(tmp_path: Path):
    alone, wrapped = _network("iresnet18", tmp_path), _network("iresnet18", tmp_path, "module.")
    for key, tensor in alone.state_dict().items():
        assert torch.equal(tensor, wrapped.state_dict()[key])


def test_the_comparison_notices_other_colours_and_another_weight(tmp_path: Path):
    golden, network = GOLDEN["cases"]["iresnet18"], _network("iresnet18", tmp_path)
    x_NCHW = to_rgb_input(_pictures())
    expected = np.asarray(golden["embedding_every_8th"])
    with torch.inference_mode():
        swapped = network(x_NCHW.flip(1))[:, ::8].numpy()
        network.get_parameter("layer2.1.bn1.weight").mul_(1.001)
        scaled = network(x_NCHW)[:, ::8].numpy()
    assert np.abs(swapped - expected).max() > 1e-3
    assert np.abs(scaled - expected).max() > 1e-5
