"""LPIPS of uint8 images: torchmetrics' values under the same weights."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.image.lpips import _NoTrainLpips

from agetf_pipeline.age_transformer.lpips import Lpips
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.evaluation import perceptual
from agetf_pipeline.evaluation.perceptual import load_lpips_distance

CPU = torch.device("cpu")


@pytest.fixture
def weights(tmp_path):
    """Random weights under the names of torchvision's file."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5
        for name, value in Lpips().state_dict().items()
        if name.startswith("features.")
    }
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    torch.save({**state, "classifier.1.weight": torch.zeros(2, 2)}, path)
    return path


def images(num: int, size: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, size, size, 3), dtype=np.uint8)


def test_equals_torchmetrics_for_images_of_0_to_1(weights, monkeypatch):
    monkeypatch.setattr(perceptual, "_BATCH", 2)  # three pairs take two batches
    reference = _NoTrainLpips(net="alex", pnet_rand=True)
    theirs = reference.net.state_dict()
    state = torch.load(weights, weights_only=True)
    for name in theirs:  # slice1.0.weight is features.0.weight
        theirs[name] = state["features." + name.split(".", 1)[1]]
    reference.net.load_state_dict(theirs)
    x_NHWC, y_NHWC = images(3), images(3, seed=1)
    x_NCHW, y_NCHW = (
        torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255 for part in (x_NHWC, y_NHWC)
    )
    expected = reference(x_NCHW, y_NCHW, normalize=True).flatten().numpy()
    found = load_lpips_distance(weights, CPU).distances(x_NHWC, y_NHWC)
    assert found.dtype == np.float64
    assert (expected > 1e-3).all()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_equal_images_are_at_distance_0_and_pairs_keep_their_order(weights):
    network = load_lpips_distance(weights, CPU)
    x_NHWC, y_NHWC = images(2), images(2, seed=1)
    y_NHWC[1] = x_NHWC[1]
    found = network.distances(x_NHWC, y_NHWC)
    assert found[0] > 1e-3
    assert found[1] == pytest.approx(0, abs=1e-7)
    assert network.distances(x_NHWC[:0], y_NHWC[:0]).shape == (0,)


def test_what_does_not_fit_is_refused(weights, tmp_path):
    network = load_lpips_distance(weights, CPU)
    with pytest.raises(ValueError, match="32 px"):
        network.distances(images(1, 24), images(1, 24))
    with pytest.raises(ValueError, match="one shape"):
        network.distances(images(1, 64), images(1, 48))
    with pytest.raises(WeightsError, match="found nothing"):
        load_lpips_distance(tmp_path / "absent.pth", CPU)
