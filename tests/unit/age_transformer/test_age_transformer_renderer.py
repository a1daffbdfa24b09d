"""The renderer and the grid."""

import numpy as np
import pytest
import torch
from PIL import Image

from agetf_pipeline.age_transformer.grid import save_grid
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.renderer import KIND, Renderer, to_tensor, to_uint8
from agetf_pipeline.age_transformer.sizes import ModelSettings
from agetf_pipeline.core.errors import DataError, WeightsError
from agetf_pipeline.core.weights import save_weights

SMALL = ModelSettings(32, 1, (8, 16, 16), (1, 1, 1), 1, 2, 16)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    model = AgeTransformer(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    path = tmp_path / "weights.safetensors"
    card = {"kind": KIND, "model": SMALL.to_card(), "trained_on": "synthetic", "run_name": "t"}
    save_weights(path, model, card)
    return path


@pytest.fixture
def faces():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def test_card_rebuilds_the_model_and_rendering_is_deterministic(weights, faces):
    renderer = Renderer.load(weights)
    assert renderer.card["trained_on"] == "synthetic"
    assert renderer.size_px == 32
    first = renderer.render(faces, [5, 33, 80])
    assert first.shape == (5, 3, 32, 32, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, Renderer.load(weights).render(faces, [5, 33, 80]))
    assert (first[:, 0] != first[:, 2]).any()


def test_a_face_gives_the_same_bytes_whatever_is_beside_it(weights, faces):
    renderer = Renderer.load(weights)
    together = renderer.render(faces, [20, 70.5])
    alone = np.concatenate([renderer.render(face[None], [20, 70.5]) for face in faces])
    np.testing.assert_array_equal(together, alone)
    batched = renderer.render(faces, [20, 70.5], batch_size=3)
    assert np.abs(batched.astype(int) - together.astype(int)).max() <= 1


def test_any_age_from_0_to_100_renders_and_none_outside(weights, faces):
    renderer = Renderer.load(weights)
    assert renderer.render(faces[:1], [0, 0.5, 99.9, 100]).shape[1] == 4
    for wrong in ([-1], [101], [float("nan")], []):
        with pytest.raises(DataError, match="0 to 100"):
            renderer.render(faces[:1], wrong)


def test_faces_of_another_size_or_type_are_refused(weights, faces):
    renderer = Renderer.load(weights)
    with pytest.raises(DataError, match="32"):
        renderer.render(faces[:, :16], [20])
    with pytest.raises(DataError, match="uint8"):
        renderer.render(faces.astype(np.float32), [20])
    assert renderer.render(faces[:0], [20]).shape == (0, 1, 32, 32, 3)


def test_foreign_weights_are_refused(tmp_path, faces):
    path = tmp_path / "other.safetensors"
    save_weights(path, torch.nn.Linear(2, 2), {"kind": "age_regressor"})
    with pytest.raises(WeightsError, match="age_regressor"):
        Renderer.load(path)
    with pytest.raises(WeightsError, match="found nothing"):
        Renderer.load(tmp_path / "absent.safetensors")


def test_tensors_and_pictures_convert_without_loss(faces):
    np.testing.assert_array_equal(to_uint8(to_tensor(faces)), faces)


def test_grid_shows_every_face_at_every_age(tmp_path, faces):
    renderings = np.zeros((5, 4, 32, 32, 3), np.uint8)
    renderings[:, :, :, :, 0] = 200
    path = save_grid(
        tmp_path / "grid.png", faces // 2, renderings, [5, 15, 25.5, 95],
        row_labels=[f"face {k}" for k in range(5)], title="Ten ages", footer="synthetic faces",
        cell_px=64,
    )  # fmt: skip
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    red = (picture[..., 0] == 200) & (picture[..., 1] == 0)
    assert red.sum() == 5 * 4 * 64 * 64
    assert picture.shape[0] > 5 * 64
    assert picture.shape[1] > 5 * 64
    again = save_grid(tmp_path / "plain.png", faces, renderings, [5, 15, 25.5, 95], cell_px=64)
    assert Image.open(again).size < Image.open(path).size


def test_grid_refuses_arrays_that_do_not_belong_together(tmp_path, faces):
    with pytest.raises(DataError, match="5 faces"):
        save_grid(tmp_path / "g.png", faces, np.zeros((4, 2, 32, 32, 3), np.uint8), [5, 15])
