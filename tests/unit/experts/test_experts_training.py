from pathlib import Path

import numpy as np
import pytest
import torch

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import ConfigError, DataError, StageError
from agetf_pipeline.core.tuning import FitResult
from agetf_pipeline.core.weights import read_card, read_state
from agetf_pipeline.experts.augment import Augmentation, augment
from agetf_pipeline.experts.kinds import trainer_of
from agetf_pipeline.experts.preprocess import (
    PROFILES,
    faces_to_tensor,
    normalise,
    profile_named,
)
from agetf_pipeline.experts.training import LabelledFaces, build_module, fit_expert

CPU = torch.device("cpu")


def _data(num: int = 24, size_px: int = 32) -> LabelledFaces:
    """Faces whose brightness is their age."""
    rng = np.random.default_rng(0)
    ages = rng.uniform(0, 90, num).astype(np.float32)
    noise = rng.integers(0, 20, (num, size_px, size_px, 3))
    faces = (ages[:, None, None, None] * 2.5 + noise).clip(0, 255).astype(np.uint8)
    return LabelledFaces(faces, ages, [None, "male", "female"] * (num // 3))


def _fit(name: str, tmp_path: Path, num_steps: int, file: str = "w.safetensors") -> FitResult:
    expert = ExpertConfig(size="tiny", input_px=32, num_steps=num_steps, batch_size=8, lr=2e-3)
    return fit_expert(
        name, expert, _data(), 1, CPU, tmp_path / "fit.pt", "id", tmp_path / file,
        {"trained_on": "synthetic", "fit_identity": "id"},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["mivolo", "resnet50", "vgg16"])
def test_training_lowers_the_loss_and_writes_a_card(name: str, tmp_path: Path):
    first = _fit(name, tmp_path, 1).final_loss
    last = _fit(name, tmp_path, 30).final_loss
    assert last < 0.8 * first
    card = read_card(tmp_path / "w.safetensors")
    assert card["architecture"] == name
    assert card["trained_on"] == "synthetic"
    assert card["num_train_images"] == 24
    assert not (tmp_path / "fit.pt").exists()


def test_training_is_deterministic(tmp_path: Path):
    _fit("vgg16", tmp_path, 3, "a.safetensors")
    _fit("vgg16", tmp_path, 3, "b.safetensors")
    first, second = read_state(tmp_path / "a.safetensors"), read_state(tmp_path / "b.safetensors")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_no_labelled_face_is_explained(tmp_path: Path):
    empty = LabelledFaces(np.empty((0, 32, 32, 3), np.uint8), np.empty(0, np.float32), [])
    with pytest.raises(StageError, match="labelled images"):
        fit_expert(
            "vgg16", ExpertConfig(size="tiny", input_px=32), empty, 0, CPU, tmp_path / "c.pt",
            "id", tmp_path / "w.safetensors", {},
        )  # fmt: skip


def test_building_a_module_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_module("mivolo", ExpertConfig(size="tiny", input_px=32), np.array([30.0]), 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["mivolo", "resnet50", "vgg16"])
def test_augmentation_stays_in_range_and_follows_its_generator(name: str):
    x = torch.rand(6, 3, 32, 32) * 255
    before = x.clone()
    how = trainer_of(name, ExpertConfig()).augmentation
    first = augment(x, how, torch.Generator().manual_seed(1))
    second = augment(x, how, torch.Generator().manual_seed(1))
    other = augment(x, how, torch.Generator().manual_seed(2))
    assert torch.equal(x, before)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.shape == x.shape
    assert first.min() >= 0
    assert first.max() <= 255


def test_augmentation_can_make_all_faces_grey():
    how = Augmentation(p_grey=1.0, max_noise=0.0)
    out = augment(torch.rand(4, 3, 32, 32) * 255, how, torch.Generator().manual_seed(0))
    assert torch.allclose(out[:, 0], out[:, 1], atol=1e-3)
    assert torch.allclose(out[:, 1], out[:, 2], atol=1e-3)


def test_augmentation_without_strength_only_mirrors():
    none = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    x = torch.rand(8, 3, 32, 32) * 255
    out = augment(x, none, torch.Generator().manual_seed(0))
    same = [torch.allclose(o, i, atol=0.1) for o, i in zip(out, x, strict=True)]
    mirrored = [torch.allclose(o, i.flip(2), atol=0.1) for o, i in zip(out, x, strict=True)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)


def test_faces_are_resized_alone_and_in_range():
    faces = np.random.default_rng(0).integers(0, 256, (3, 50, 50, 3), np.uint8)
    x = faces_to_tensor(faces, CPU, 32)
    assert x.shape == (3, 3, 32, 32)
    assert torch.equal(faces_to_tensor(faces[1:2], CPU, 32)[0], x[1])
    same = faces_to_tensor(faces, CPU, 50)
    assert torch.equal(same.permute(0, 2, 3, 1), torch.from_numpy(faces).float())


@pytest.mark.parametrize(
    "faces",
    [np.zeros((2, 32, 32, 3), np.float32), np.zeros((32, 32, 3), np.uint8),
     np.zeros((2, 32, 40, 3), np.uint8)],
)  # fmt: skip
def test_other_arrays_are_refused(faces: np.ndarray):
    with pytest.raises(DataError):
        faces_to_tensor(faces, CPU, 32)


def test_profiles_normalise_as_they_say():
    x = torch.zeros(1, 3, 1, 1)
    x[0, 0] = 255
    red = normalise(x, PROFILES["imagenet"])[0, :, 0, 0]
    assert red[0].item() == pytest.approx((1 - 0.485) / 0.229, rel=1e-5)
    assert red[2].item() == pytest.approx(-0.406 / 0.225, rel=1e-5)
    assert normalise(x, PROFILES["raw_bgr"])[0, :, 0, 0].tolist() == [0, 0, 255]
    with pytest.raises(ConfigError, match="imagenet"):
        profile_named("nothing")
