"""Embedders from files: what loads as one, what it is called, and where it looks at a face."""

import cv2
import numpy as np
import pytest
import torch

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import read_card, save_weights
from agetf_pipeline.evaluation import arcface, ir50
from agetf_pipeline.evaluation.embedders import (
    PUBLISHED_KIND,
    bring_embedder,
    cut_window,
    load_embedder,
    tensors_digest,
)
from agetf_pipeline.evaluation.judges import AGE_KIND, IDENTITY_KIND, to_input
from agetf_pipeline.evaluation.networks import AgeEstimator, IdentityEmbedder

CPU = torch.device("cpu")
# ArcFace's template at 112 px: eyes, nose, corners of the mouth.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]]
)  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """An AdaFace and an ArcFace checkpoint of random weights, as they are published."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    ada, arc = ir50.IRNet(ir50.BLOCKS["ir_18"]), arcface.ArcFaceNet(arcface.BLOCKS["iresnet18"])
    state = {f"model.{name}": tensor for name, tensor in ada.state_dict().items()}
    torch.save({"state_dict": state | {"head.t": torch.zeros(1)}}, folder / "adaface.ckpt")
    torch.save(arc.state_dict(), folder / "backbone.pth")
    return {
        "AdaFace ir_18": (folder / "adaface.ckpt", ada.eval()),
        "ArcFace iresnet18": (folder / "backbone.pth", arc.eval()),
    }


def faces(side: int = 128, num: int = 2) -> np.ndarray:
    rng = np.random.default_rng(side)
    coarse = rng.integers(0, 256, (num, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(side // 8, 1).repeat(side // 8, 2)


def ffhq_crop(points_P2: np.ndarray, side: int) -> np.ndarray:
    """Where five points of a photograph lie in the square that FFHQ's recipe cuts out, pixels.

    Written anew from the recipe (Karras et al. 2019, recreate_aligned_images), not from ours.
    """
    left, right = points_P2[0], points_P2[1]
    mouth = (points_P2[3] + points_P2[4]) / 2
    eyes, eye_to_eye = (left + right) / 2, right - left
    eye_to_mouth = mouth - eyes
    x = eye_to_eye - eye_to_mouth[::-1] * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    y = x[::-1] * [-1, 1]
    centre = eyes + eye_to_mouth * 0.1
    offset = points_P2 - (centre - x - y)
    return np.stack([offset @ x, offset @ y], axis=1) / (2 * (x @ x)) * side


def test_the_fixed_window_puts_the_points_of_a_face_where_the_template_has_them():
    side = 448
    # The same face, turned and elsewhere in a photograph: FFHQ's recipe makes it upright.
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = ffhq_crop(TEMPLATE @ turn.T * 2.7 + [310.0, 95.0], side)
    found = []
    for x, y in points:
        picture = np.zeros((1, side, side, 3), np.uint8)
        # Sixteenths of a pixel; the middle of a pixel is half a pixel from its corner.
        middle = (round((x - 0.5) * 16), round((y - 0.5) * 16))
        cv2.circle(picture[0], middle, 6 * 16, (255,) * 3, -1, shift=4)
        weight = cut_window(picture, 112)[0, :, :, 0].astype(float)
        rows, columns = np.mgrid[:112, :112]
        found.append([(weight * columns).sum(), (weight * rows).sum()] / weight.sum())
    np.testing.assert_allclose(np.array(found) + 0.5, TEMPLATE, atol=0.6)


def test_faces_of_any_side_are_cut_alike():
    small, large = (
        cut_window(faces(128), 112),
        cut_window(faces(128).repeat(2, 1).repeat(2, 2), 112),
    )
    assert small.shape == large.shape == (2, 112, 112, 3)
    assert np.abs(small.astype(float) - large).mean() < 6


@pytest.mark.parametrize("name", ["AdaFace ir_18", "ArcFace iresnet18"])
def test_a_published_network_is_brought_and_loads_from_its_card(published, tmp_path, name):
    path, network = published[name]
    target = tmp_path / "identity_embedder.safetensors"
    bring_embedder(path, target)
    card = read_card(target)
    assert card["kind"] == PUBLISHED_KIND
    assert " ".join((card["family"], card["architecture"])) == name
    straight, brought = load_embedder(path, CPU), load_embedder(target, CPU)
    assert straight.name == brought.name == name
    assert card["source_sha256"] == straight.version != brought.version
    assert "not stated" in brought.trained_on
    embedded = brought.embed(faces())
    np.testing.assert_array_equal(embedded, straight.embed(faces()))
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)
    # Red first for ArcFace, blue first for AdaFace, in -1 to 1, and the window of the face.
    x = torch.from_numpy(cut_window(faces(), 112)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        expected = network(x.flip(1) if name.startswith("AdaFace") else x)
    np.testing.assert_allclose(embedded, expected, atol=1e-6)
    assert tensors_digest(path) == tensors_digest(target)


def test_this_projects_embedder_takes_whole_faces(tmp_path):
    path, copy = tmp_path / "own.safetensors", tmp_path / "copy.safetensors"
    module = IdentityEmbedder(8, 16).eval()
    card = {"kind": IDENTITY_KIND, "width": 8, "embedding_dim": 16, "input_px": 64,
            "trained_on": "synthetic"}  # fmt: skip
    save_weights(path, module, card)
    bring_embedder(path, copy)
    assert copy.read_bytes() == path.read_bytes()
    embedder = load_embedder(copy, CPU)
    assert (embedder.trained_on, embedder.takes_window) == ("synthetic", False)
    with torch.inference_mode():
        expected = module(to_input(faces(), 64, CPU))
    np.testing.assert_allclose(embedder.embed(faces()), expected, atol=1e-6)
    assert embedder.embed(faces()[:0]).shape[0] == 0


def test_another_network_is_another_digest(published):
    digests = {tensors_digest(path) for path, _ in published.values()}
    assert len(digests) == 2


def test_what_is_no_embedder_is_refused_and_nothing_is_written(published, tmp_path):
    target = tmp_path / "identity_embedder.safetensors"
    age = tmp_path / "age.safetensors"
    card = {"kind": AGE_KIND, "width": 8, "input_px": 64, "trained_on": "synthetic"}
    save_weights(age, AgeEstimator(8), card)
    with pytest.raises(WeightsError, match=f"found weights of kind '{AGE_KIND}'"):
        bring_embedder(age, target)
    _, network = published["ArcFace iresnet18"]
    state = dict(network.state_dict())
    state.pop("layer3.1.bn2.weight")
    torn = tmp_path / "torn.pth"
    torch.save(state, torn)
    with pytest.raises(WeightsError, match=r"layer3\.1\.bn2\.weight"):
        bring_embedder(torn, target)
    torch.save({name: v for name, v in state.items() if "layer2.1" not in name}, torn)
    with pytest.raises(WeightsError, match=r"found \(2, 1, 2, 2\)"):
        bring_embedder(torn, target)
    torch.save({"weight": torch.zeros(3)}, torn)
    with pytest.raises(WeightsError, match="IR network"):
        bring_embedder(torn, target)
    assert not target.exists()
