"""LPIPS: torchmetrics' values under the same weights, and nothing under its name without them."""

from pathlib import Path

import pytest
import torch
from torchmetrics.functional.image.lpips import _NoTrainLpips

from agetf_pipeline.age_transformer.lpips import Lpips, load_lpips
from agetf_pipeline.core.errors import WeightsError


def alexnet_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names of the published file, with a stub of its classifier."""
    torch.manual_seed(seed)
    features = {
        name: torch.randn_like(value) / value[0].numel() ** 0.5
        for name, value in Lpips().state_dict().items()
        if name.startswith("features.")
    }
    return {**features, "classifier.1.weight": torch.zeros(2, 2)}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "alexnet.pth"
    torch.save(alexnet_state(), path)
    return path


def images(size: int = 64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, 3, size, size, generator=generator) * 2 - 1


@pytest.mark.parametrize("size", [64, 96])
def test_equals_torchmetrics_under_the_same_weights(weights, size):
    reference = _NoTrainLpips(net="alex", pnet_rand=True)
    theirs = reference.net.state_dict()
    state = torch.load(weights, weights_only=True)
    for name in theirs:  # slice1.0.weight is features.0.weight
        theirs[name] = state["features." + name.split(".", 1)[1]]
    reference.net.load_state_dict(theirs)
    x, y = images(size), images(size, seed=1)
    expected = reference(x, y).flatten()
    assert (expected > 1e-3).all()
    torch.testing.assert_close(load_lpips(weights)(x, y), expected, atol=1e-6, rtol=1e-5)


def test_is_zero_at_the_target_symmetric_and_falls_along_its_gradient(weights):
    lpips = load_lpips(weights)
    x, y = images().requires_grad_(), images(seed=1)
    torch.testing.assert_close(lpips(y, y), torch.zeros(3), atol=1e-7, rtol=0)
    torch.testing.assert_close(lpips(x, y), lpips(y, x))
    value = lpips(x, y).sum()
    (gradient,) = torch.autograd.grad(value, x)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    assert lpips(x - 0.5 * gradient / gradient.norm(), y).sum() < value


def test_reads_images_of_minus_one_to_one(weights):
    """ImageNet's mean grey, in that range, is what the features see as nothing."""
    lpips = load_lpips(weights)
    seen = []
    lpips.features[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    grey = (torch.tensor([0.485, 0.456, 0.406]) * 2 - 1)[None, :, None, None].expand(1, 3, 32, 32)
    white = torch.ones(1, 3, 32, 32)
    lpips(grey, white)
    assert seen[0][0].abs().max() < 0.01
    deviations = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(seen[0][1].mean(dim=(1, 2)), deviations, atol=0.02, rtol=0)


def test_is_frozen(weights):
    lpips = load_lpips(weights)
    assert not lpips.training
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="found nothing"):
        load_lpips(tmp_path / "absent.pth")
    state = alexnet_state()
    del state["features.6.bias"]
    state["layer1.weight"] = torch.zeros(1)
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"features\.6\.bias.*layer1\.weight"):
        load_lpips(path)
