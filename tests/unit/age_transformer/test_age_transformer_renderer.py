"""The renderer and the grid."""

import numpy as np
import pytest
import torch
from PIL import Image

from agetf_pipeline.age_transformer.grid import save_grid
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.renderer import KIND, Renderer, to_tensor, to_uint8
from agetf_pipeline.age_transformer.sizes import ModelSettings
from agetf_pipeline.core.errors import ConfigError, DataError, WeightsError
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.synthetic.faces import draw_face, draw_identity

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


@pytest.mark.parametrize("batch_size", [None, 2])
def test_faces_side_by_side_come_in_their_order(weights, faces, batch_size):
    renderer, before = Renderer.load(weights), torch.get_num_threads()
    five = np.concatenate([faces, faces[::-1]])[:5]
    alone = renderer.render(five, [20, 70.5], batch_size)
    try:
        torch.set_num_threads(2)
        beside = renderer.render(five, [20, 70.5], batch_size, side_by_side=True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert np.abs(beside.astype(int) - alone.astype(int)).max() <= 1


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


def test_damaged_weights_are_refused(weights, tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="found damage"):
        Renderer.load(cut)
    settings = tmp_path / "settings.safetensors"
    save_weights(settings, torch.nn.Linear(2, 2), {"kind": KIND, "model": {"unknown": 1}})
    with pytest.raises(WeightsError, match="does not describe"):
        Renderer.load(settings)


def test_bf16_differs_by_little_and_repeats(weights):
    drawn = np.stack([draw_face(draw_identity(seed), 40.0, 32) for seed in range(3)])
    exact = Renderer.load(weights).render(drawn, [5, 33, 80]).astype(int)
    renderer = Renderer.load(weights, precision="bf16")
    coarse = renderer.render(drawn, [5, 33, 80])
    # Of random weights, whose renderings leap from pixel to pixel; trained ones stay within 2.
    assert 0 < np.abs(coarse - exact).max() <= 8
    assert np.abs(coarse - exact).mean() < 1
    np.testing.assert_array_equal(coarse, renderer.render(drawn, [5, 33, 80]))
    np.testing.assert_array_equal(coarse[1:2], renderer.render(drawn[1:2], [5, 33, 80]))
    with pytest.raises(ConfigError, match="fp16"):
        Renderer.load(weights, precision="fp16")  # type: ignore[arg-type]


def test_compiled_rendering_equals_eager_rendering(weights, faces):
    # This backend traces as the default one does and runs PyTorch's own operators; generating and
    # compiling C++ would take most of a minute.
    compiled = Renderer.load(weights, compiled="aot_eager")
    expected = Renderer.load(weights).render(faces, [5, 33.5]).astype(int)
    assert np.abs(compiled.render(faces, [5, 33.5]) - expected).max() <= 1


def test_a_compiler_that_fails_is_named(weights, faces):
    def broken(graph, inputs):
        raise RuntimeError("no C++ compiler")

    torch._dynamo.reset()
    renderer = Renderer.load(weights, compiled=broken)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="without --compile"):
        renderer.render(faces[:1], [20])


def test_a_photograph_is_rendered_from_its_pixels_or_its_file(weights, tmp_path):
    rows, columns = np.mgrid[:400, :600]
    scene = np.stack([(rows + columns) // 5] * 3, axis=2).astype(np.uint8)
    scene[100:292, 300:492] = draw_face(draw_identity(8), 35.0, 192)
    renderer = Renderer.load(weights)
    rendered = renderer.render_photo(scene, [5, 60.5])
    assert rendered.face.shape == (32, 32, 3)
    assert rendered.renderings.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(
        rendered.renderings, renderer.render(rendered.face[None], [5, 60.5])[0]
    )
    Image.fromarray(scene).save(tmp_path / "scene.png")
    again = renderer.render_photo(tmp_path / "scene.png", [5, 60.5])
    np.testing.assert_array_equal(again.renderings, rendered.renderings)
    assert "face_cropped" in again.flags
    with pytest.raises(DataError, match="--aligned"):
        renderer.render_photo(scene[:90], [5])
    whole = renderer.render_photo(scene[:90], [5], aligned=True)
    assert whole.renderings.shape == (1, 32, 32, 3)


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
