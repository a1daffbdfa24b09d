"""InceptionV3 from a file: torchmetrics' features and FID under the same weights, nothing else."""

import io
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import FrechetInceptionDistance

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.statistics import Sampling
from agetf_pipeline.evaluation import inception
from agetf_pipeline.evaluation.distances import measure_fid
from agetf_pipeline.evaluation.inception import Inception, load_inception

CPU = torch.device("cpu")


def random_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights in the published layout, of a size that lets images differ in features."""

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_, **__):
            pass

    nothing = io.BytesIO()  # the constructor insists on reading something
    torch.save({}, nothing)
    nothing.seek(0)
    generator = torch.Generator().manual_seed(seed)
    state = Unloaded("layout", ["2048"], nothing).state_dict()
    return {
        name: torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
        if value.ndim == 4
        else value
        for name, value in state.items()
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(random_state(), path)
    return path


@pytest.fixture(scope="module")
def network(weights) -> Inception:
    return load_inception(weights, CPU)


def images(num: int, height: int = 48, width: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def test_features_are_those_of_torchmetrics_under_the_same_weights(weights, network):
    reference = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(weights))
    x_NHWC = images(3)
    expected = reference.inception(torch.from_numpy(x_NHWC).permute(0, 3, 1, 2)).numpy()
    found = network.features(x_NHWC)
    assert found.shape == (3, 2048)
    assert found.dtype == np.float32
    assert expected.std(axis=0).max() > 0.01  # the images do differ: equality says something
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_fid_of_images_is_that_of_torchmetrics(weights, network):
    """From uint8 images to the figure; 64 features, whose eigenvalues take no minute."""
    reference = FrechetInceptionDistance(64, feature_extractor_weights_path=str(weights))
    real, generated = images(8, seed=1), images(8, seed=2) // 2
    for batch, is_real in ((real, True), (generated, False)):
        reference.update(torch.from_numpy(batch).permute(0, 3, 1, 2), real=is_real)
    first_64 = Inception(reference.inception, CPU)
    fid = measure_fid(
        first_64.features(generated), first_64.features(real), Sampling(), min_images=8
    )
    assert fid.value == pytest.approx(float(reference.compute()), rel=1e-3)
    assert fid.value > 0.01


def test_batches_change_nothing_and_are_bounded(network, monkeypatch):
    x_NHWC = images(5)
    whole = network.features(x_NHWC)
    sizes = []
    hook = network.module.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr(inception, "_MAX_PIXELS", 2 * 48 * 40)
    np.testing.assert_allclose(network.features(x_NHWC), whole, rtol=1e-4, atol=1e-6)
    hook.remove()
    assert sizes == [2, 2, 1]
    assert network.features(images(0)).shape == (0, 2048)


def test_safetensors_of_the_same_tensors_do(weights, network, tmp_path):
    path = tmp_path / "inception.safetensors"
    state = torch.load(weights, weights_only=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    x_NHWC = images(1)
    found = load_inception(path, CPU).features(x_NHWC)
    np.testing.assert_array_equal(found, network.features(x_NHWC))


def test_nothing_but_the_right_file_is_taken_and_nothing_is_downloaded(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(WeightsError, match="found nothing"):
        load_inception(tmp_path / "absent.pth", CPU)
    other = tmp_path / "other.pth"
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(1), "layer1.weight": torch.ones(2)}, other)
    with pytest.raises(WeightsError, match=r"layer1\.weight") as caught:
        load_inception(other, CPU)
    assert "Mixed_7c" in str(caught.value)
    assert "evaluate.inception_weights" in str(caught.value)


class Dangerous:
    """Its file runs code when it is unpickled without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_code_in_a_weights_file_is_not_run(tmp_path):
    """torch-fidelity itself would unpickle whatever the file holds."""
    mark, path = tmp_path / "ran", tmp_path / "bad.pth"
    torch.save({"Conv2d_1a_3x3.conv.weight": Dangerous(mark)}, path)
    with pytest.raises(WeightsError):
        load_inception(path, CPU)
    assert not mark.exists()


def test_floats_are_refused_and_the_network_is_frozen(network):
    with pytest.raises(TypeError, match="uint8"):
        network.features(images(1).astype(np.float32))
    assert not network.module.training
    assert not any(parameter.requires_grad for parameter in network.module.parameters())
