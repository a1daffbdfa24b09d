"""Identity before and after: the window of the face, the models, and what loads as one."""

import math

import cv2
import numpy as np
import pytest
import torch

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.faces import FoundFace
from agetf_pipeline.data.images import read_rgb
from agetf_pipeline.enhance.guard_measures import measure_pictures
from agetf_pipeline.enhance.identity import (
    IdentityModel,
    face_pair,
    is_the_evaluations,
    load_identity_model,
    similarities,
)
from agetf_pipeline.enhance.identity_alignment import Window, cut_out, ffhq_window, find_window
from agetf_pipeline.evaluation.ir50 import BLOCKS, IRNet, network_state, read_published
from agetf_pipeline.evaluation.judges import AGE_KIND, IDENTITY_KIND, to_input
from agetf_pipeline.evaluation.networks import AgeEstimator, IdentityEmbedder
from agetf_pipeline.synthetic.faces import draw_face
from agetf_pipeline.synthetic.identity import draw_identity

CPU = torch.device("cpu")
TEMPLATE_EYES = ((38.2946, 51.6963), (73.5318, 51.5014))  # ArcFace's, at 112 px


class Eyes:
    """A detector that finds eyes where it was told, in shares of the sides; or nothing."""

    def __init__(self, *eyes: tuple[float, float]) -> None:
        self.eyes = eyes

    def find(self, rgb: np.ndarray) -> list[FoundFace]:
        if not self.eyes:
            return []
        height, width = rgb.shape[:2]
        first, second = ((x * width, y * height) for x, y in self.eyes)
        return [FoundFace(0, 0, width, (first, second))]


def dots(size: int, *places: tuple[float, float]) -> np.ndarray:
    """A picture with a white dot at each place, given in shares of its side."""
    picture = np.zeros((size, size, 3), np.uint8)
    for x, y in places:
        cv2.circle(
            picture, (round(x * size - 0.5), round(y * size - 0.5)), size // 60, (255,) * 3, -1
        )
    return picture


def centres(picture: np.ndarray) -> np.ndarray:
    """Centres of the dots, left to right, in pixels (x, y)."""
    mask = (picture[..., 0] > 60).astype(np.uint8)
    found = cv2.connectedComponentsWithStats(mask)[3][1:]
    return found[np.argsort(found[:, 0])]


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    return [draw_face(draw_identity(number), 40.0, 96) for number in range(3)]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> IdentityModel:
    return load_identity_model(save_embedder(tmp_path_factory.mktemp("weights")), CPU)


def save_embedder(folder, kind: str = IDENTITY_KIND):
    torch.manual_seed(0)
    network = IdentityEmbedder(8, 16) if kind == IDENTITY_KIND else AgeEstimator(8)
    drawn = [draw_face(draw_identity(number), 30.0, 64) for number in range(8)]
    for _ in range(30):  # its normalisations know faces: embeddings spread around their mean
        network.train()(to_input(np.stack(drawn), 64, CPU))
    card = {"kind": kind, "width": 8, "embedding_dim": 16, "input_px": 64}
    path = folder / f"{kind}.safetensors"
    save_weights(path, network, card | {"trained_on": "synthetic"})
    return path


def test_the_window_puts_ffhqs_eyes_on_the_template():
    # FFHQ's recipe for a face of the template's proportions, from which the window is derived.
    square = dots(448, (0.3797, 0.4722), (0.6203, 0.4722))
    found = centres(cut_out(square, ffhq_window(), 112))
    np.testing.assert_allclose(found, TEMPLATE_EYES, atol=1.0)


@pytest.mark.parametrize("eyes", [((0.36, 0.45), (0.63, 0.45)), ((0.38, 0.5), (0.6, 0.44))])
def test_detected_eyes_are_put_on_the_template(eyes):
    square = dots(448, *eyes)
    window = find_window(square, square, Eyes(*eyes))
    assert window.found_by == "eyes"
    assert window.angle == pytest.approx(
        math.atan2(eyes[1][1] - eyes[0][1], eyes[1][0] - eyes[0][0])
    )
    found = centres(cut_out(square, window, 112))
    np.testing.assert_allclose(found, [(38.3, 51.6), (73.5, 51.6)], atol=1.0)


@pytest.mark.parametrize("eyes", [(), ((0.1, 0.1), (0.3, 0.1)), ((0.48, 0.47), (0.52, 0.47))])
def test_eyes_that_cannot_be_are_not_believed(eyes, faces):
    assert find_window(faces[0], faces[0], Eyes(*eyes)) == ffhq_window()


def test_both_pictures_get_one_window_whatever_their_sizes(faces):
    large = cv2.resize(faces[0], (384, 384), interpolation=cv2.INTER_CUBIC)
    for window in (ffhq_window(), Window(0.5, 0.48, 0.8, 0.1, "eyes")):
        small_cut, large_cut = (cut_out(picture, window, 64) for picture in (faces[0], large))
        difference = np.abs(small_cut.astype(int) - large_cut)
        assert difference.mean() < 2


def test_the_same_face_gives_one_and_another_less(embedder, faces):
    pairs = [face_pair(faces[0], other, embedder) for other in faces]
    same, *others = similarities(pairs, embedder)
    assert same == pytest.approx(1.0, abs=1e-6)
    assert max(others) < 0.999
    assert pairs[0].alignment == "whole"
    assert embedder.trained_on == "synthetic"
    assert similarities([], embedder) == []


def test_only_an_identity_embedder_loads_as_one(tmp_path):
    with pytest.raises(WeightsError, match=IDENTITY_KIND):
        load_identity_model(save_embedder(tmp_path, AGE_KIND), CPU)
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"model.conv.weight": torch.zeros(3)}}, path)
    with pytest.raises(WeightsError, match="found 0 blocks"):
        load_identity_model(path, CPU)


def test_an_adaface_checkpoint_loads_strictly_and_aligns(tmp_path, faces):
    torch.manual_seed(0)
    network = IRNet(BLOCKS["ir_18"])
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    path = tmp_path / "adaface.ckpt"
    torch.save({"state_dict": state | {"head.kernel": torch.zeros(2)}, "epoch": 1}, path)
    model = load_identity_model(path, CPU)
    assert model.architecture == "AdaFace ir_18"
    pairs = [face_pair(faces[0], other, model) for other in faces]
    assert pairs[0].before.shape == (112, 112, 3)
    assert {pair.alignment for pair in pairs} <= {"eyes", "window"}
    same, *others = similarities(pairs, model)
    assert same == pytest.approx(1.0, abs=1e-6)
    assert max(others) < same
    del state["model.output_layer.3.bias"]
    torch.save({"state_dict": state | {"model.extra": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match=r"output_layer\.3\.bias.*extra"):
        read_published(path)
    path.unlink()


def test_the_heads_tensors_are_left_out_and_bare_names_are_taken():
    tensors = {"model.a": torch.zeros(1), "head.kernel": torch.zeros(1)}
    assert list(network_state({"state_dict": tensors})) == ["a"]
    assert list(network_state({"a": torch.zeros(1)})) == ["a"]


def test_the_evaluations_own_model_is_recognised(tmp_path, embedder):
    workspace = Workspace(tmp_path)
    assert not is_the_evaluations(embedder, workspace)
    folder = workspace.models / "evaluators"
    folder.mkdir(parents=True)
    save_embedder(folder).rename(folder / "identity_embedder.safetensors")
    assert is_the_evaluations(embedder, workspace)


def test_a_file_that_cannot_be_read_costs_its_own_row_alone(tmp_path, embedder, faces):
    workspace = Workspace(tmp_path)
    for number, face in enumerate(faces):
        cv2.imwrite(str(tmp_path / f"{number}.png"), face)
    (tmp_path / "1.png").write_bytes(b"not an image")
    rows = [
        {"image_id": str(number), "face_path": "0.png", "enhanced_path": f"{number}.png"}
        for number in range(3)
    ]
    measured = measure_pictures(workspace, rows, embedder)
    assert measured["0"].identity_similarity == pytest.approx(1.0, abs=1e-6)
    assert "readable image" in (measured["1"].problem or "")
    assert measured["1"].sharpness_ratio is measured["1"].identity_similarity is None
    assert measured["2"].identity_similarity is not None
    assert measured["2"].sharpness_ratio == pytest.approx(
        measure_pictures(workspace, rows[2:], None)["2"].sharpness_ratio
    )
    assert read_rgb(tmp_path / "0.png").shape == faces[0].shape
