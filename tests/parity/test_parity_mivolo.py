"""Our MiVOLO beside the official one: same random weights, same pictures, official numbers.

What the numbers are and how they were made: docs/golden_values.md.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mivolo_cases import CASES, CHECKPOINT, GAINS, Case
from safetensors.torch import save_file
from seeded_arrays import seeded_state
from torch import Tensor

from agetf_pipeline.experts.mivolo import (
    MiVOLO,
    MiVOLOExpert,
    build_volo,
    read_published,
    read_published_folder,
)
from agetf_pipeline.experts.mivolo_input import letterboxed

MAX_YEARS = 1e-4
GOLDEN: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "golden" / "mivolo.json").read_text()
)["cases"]


def _state(case: Case) -> dict[str, Tensor]:
    with torch.device("meta"):
        volo = build_volo("full", case.input_px, case.num_outputs, case.with_body)
    shapes = {name: tuple(tensor.shape) for name, tensor in volo.state_dict().items()}
    return {k: torch.from_numpy(v) for k, v in seeded_state(shapes, GAINS).items()}


def _module(case: Case, folder: Path) -> MiVOLO:
    """The network by way of a checkpoint as the official code reads it."""
    path = folder / "checkpoint.pth.tar"
    flags = {"no_gender": case.num_outputs == 1, "with_persons_model": case.with_body}
    state = _state(case) | {"fds.running_mean": torch.zeros(1)}
    torch.save({"state_dict": state, **flags, **CHECKPOINT}, path)
    module, input_px = read_published(path)
    path.unlink()  # pytest keeps its folders; this one would be 110 MB
    assert input_px == case.input_px
    return module.eval()


def _input(case: Case) -> Tensor:
    device = torch.device("cpu")
    x_NCHW = letterboxed(case.faces(), case.input_px, device)
    if not case.with_body:
        return x_NCHW
    return torch.cat([x_NCHW, letterboxed(case.bodies(), case.input_px, device)], dim=1)


def _max_difference_years(module: MiVOLO, x_NCHW: Tensor, golden: dict[str, Any]) -> float:
    with torch.inference_mode():
        ages = module(x_NCHW)[0].numpy()
    return float(np.abs(ages - golden["age_years"]).max())


@pytest.mark.parametrize("name", CASES)
def test_pictures_are_prepared_as_officially(name: str):
    golden, x_NCHW = GOLDEN[name], _input(CASES[name])
    assert list(x_NCHW.shape) == golden["input_shape"]
    for y, x, values in golden["input_at"]:
        np.testing.assert_allclose(x_NCHW[:, :, y, x], values, atol=1e-6)
    x_NCHW = x_NCHW.double()
    np.testing.assert_allclose(x_NCHW.mean((2, 3)), golden["input_mean_per_channel"], atol=1e-6)
    mean_squares = golden["input_mean_square_per_channel"]
    np.testing.assert_allclose((x_NCHW**2).mean((2, 3)), mean_squares, atol=3e-6)


@pytest.mark.parametrize("name", CASES)
def test_ages_and_genders_are_the_official_ones(name: str, tmp_path: Path):
    case, golden = CASES[name], GOLDEN[name]
    assert np.ptp(golden["age_years"]) > 1  # ages differ, so that equality means something
    module, x_NCHW = _module(case, tmp_path), _input(case)
    assert _max_difference_years(module, x_NCHW, golden) <= MAX_YEARS
    with torch.inference_mode():
        gender_N2 = module(x_NCHW)[1]
    if golden["gender_logits"] is None:
        assert gender_N2 is None
    else:
        assert gender_N2 is not None
        np.testing.assert_allclose(gender_N2, golden["gender_logits"], atol=2e-6)


def test_the_expert_reads_the_official_ages_of_faces_and_bodies(tmp_path: Path):
    case = CASES["face_body_224"]
    expert = MiVOLOExpert(_module(case, tmp_path), 224, "v", "published", published=True)
    readings = expert.read_with_bodies(case.faces(), case.bodies())
    golden = np.array(GOLDEN["face_body_224"]["age_years"])
    np.testing.assert_allclose(readings.age_years, golden, atol=MAX_YEARS)
    # The second person has no body: the same face by itself, with the kept embedding.
    alone = expert.read(case.faces()[1][None])
    np.testing.assert_allclose(alone.age_years, golden[1:2], atol=MAX_YEARS)


def test_version_2_gives_the_official_ages_from_its_folder(tmp_path: Path):
    case = CASES["face_body_384"]
    state = {f"mivolo.model.{name}": tensor for name, tensor in _state(case).items()}
    save_file(state, tmp_path / "model.safetensors")
    config = {"input_size": 384, "in_chans": 6, "num_classes": 3, "only_age": False}
    (tmp_path / "config.json").write_text(json.dumps(config | CHECKPOINT))
    module, input_px = read_published_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert input_px == 384
    difference = _max_difference_years(module.eval(), _input(case), GOLDEN["face_body_384"])
    assert difference <= MAX_YEARS


def test_slight_changes_are_noticed(tmp_path: Path):
    """A test that cannot fail shows nothing: each of these is a plausible mistake."""
    case, golden = CASES["face_body_224"], GOLDEN["face_body_224"]
    module, x_NCHW = _module(case, tmp_path), _input(case)
    swapped_NCHW = torch.cat([x_NCHW[:, 3:], x_NCHW[:, :3]], dim=1)
    assert _max_difference_years(module, swapped_NCHW, golden) > 1
    bgr_NCHW = x_NCHW[:, [2, 1, 0, 5, 4, 3]]
    assert _max_difference_years(module, bgr_NCHW, golden) > 0.1
    missing = (x_NCHW[:, 3:] == x_NCHW[:, 3:, :1, :1]).all(dim=(1, 2, 3))
    assert missing.tolist() == [False, True, False]
    zeros_NCHW = x_NCHW.clone()
    zeros_NCHW[missing, 3:] = 0  # zeros instead of normalised black
    assert _max_difference_years(module, zeros_NCHW, golden) > 0.01
    with torch.no_grad():
        module.get_parameter("volo.network.2.0.mlp.fc1.weight").mul_(1.001)
    assert _max_difference_years(module, x_NCHW, golden) > 10 * MAX_YEARS
