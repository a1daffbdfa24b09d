"""Checks of files: pictures that are what their rows say, weights that are numbers."""

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from agetf_pipeline.config.quality import QualityConfig
from agetf_pipeline.core.files import write_json
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.work import report_path
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.quality.file_checks import check_networks
from agetf_pipeline.quality.files import (
    IMAGE_RULES,
    describe_weights,
    look_at_images,
    look_at_weights,
    sample_rows,
)
from agetf_pipeline.quality.suites import judge


def picture(path, size=(8, 6), value=None):
    rng = np.random.default_rng(0)
    shape = (size[1], size[0], 3)
    array = rng.integers(0, 255, shape) if value is None else np.full(shape, value)
    Image.fromarray(array.astype(np.uint8)).save(path)


def failures_of(workspace: Workspace, **told) -> set[str]:
    path = workspace.root / "a.png"
    row = {"image_id": "a", "path": "a.png", "told_width_px": 8, "told_height_px": 6,
           "told_sha256": hash_file(path) if path.exists() else "0"} | told  # fmt: skip
    result = judge("pictures", look_at_images(workspace, pl.DataFrame([row])), IMAGE_RULES)
    return {verdict.name for verdict in result.failures}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    picture(tmp_path / "a.png")
    return Workspace(tmp_path)


def test_a_picture_as_its_row_says_passes(workspace):
    assert failures_of(workspace) == set()


@pytest.mark.parametrize(
    ("told", "rule"),
    [({"told_width_px": 9}, "size_as_told"), ({"told_sha256": "0" * 64}, "bytes_as_told")],
)
def test_a_picture_that_is_another_is_found(workspace, told, rule):
    assert failures_of(workspace, **told) == {rule}


def test_what_the_table_does_not_say_is_not_judged(workspace):
    assert failures_of(workspace, told_width_px=None, told_sha256=None) == set()


def test_a_missing_file_is_found(workspace):
    (workspace.root / "a.png").unlink()
    assert failures_of(workspace) == {"there"}


def test_a_cut_file_is_found(workspace):
    path = workspace.root / "a.png"
    path.write_bytes(path.read_bytes()[:-30])
    assert failures_of(workspace) == {"readable"}


def test_a_blank_picture_asks_a_person(workspace):
    picture(workspace.root / "a.png", value=128)
    assert failures_of(workspace) == {"not_blank"}


def test_a_sample_is_the_same_each_time_and_not_the_head():
    frame = pl.DataFrame({"image_id": [f"{n:064x}" for n in range(500)]})
    first, again = sample_rows(frame, 20), sample_rows(frame.reverse(), 20)
    assert first.equals(again)
    assert first.columns == ["image_id"]
    assert set(first["image_id"]) != set(frame["image_id"].head(20))


def weights(tmp_path, **tensors) -> dict:
    path = tmp_path / "weights.safetensors"
    save_file(tensors, path)
    return look_at_weights([path], tmp_path, 2**20).row(0, named=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_every_type_are_read(tmp_path, dtype):
    values = torch.tensor([-2.0, 0.5, 3.0]).to(dtype)
    found = weights(tmp_path, a=values, steps=torch.tensor([7]))
    assert found["unreadable"] is None
    assert (found["lowest"], found["highest"]) == (-2.0, 3.0)
    assert (found["num_parameters"], found["num_looked_at"]) == (4, 3)
    assert found["num_not_finite"] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_nan_and_infinity_are_counted(tmp_path, dtype):
    values = torch.tensor([1.0, float("nan"), float("inf"), 2.0]).to(dtype)
    assert weights(tmp_path, a=values)["num_not_finite"] == 2


def test_a_cut_file_of_weights_is_unreadable(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    found = look_at_weights([path], tmp_path, 2**20).row(0, named=True)
    assert "too early" in found["unreadable"]
    path.write_bytes(b"no")
    assert look_at_weights([path], tmp_path, 2**20).row(0, named=True)["unreadable"]


def leave(workspace: Workspace, **outputs) -> None:
    write_json(
        report_path(workspace, "distill"),
        {"stage": "distill", "outputs": outputs, "_output_hashes": {}},
    )


def test_networks_of_a_stage_are_found_by_its_report(tmp_path):
    workspace = Workspace(tmp_path)
    save_file({"a": torch.tensor([0.1, 0.2, float("nan")])}, tmp_path / "bad.safetensors")
    leave(workspace, net="bad.safetensors", plot="curve.png")
    result = check_networks(workspace, QualityConfig(), "distill", "guidance_networks/weights")
    assert {verdict.name for verdict in result.failures} == {"finite"}
    assert result.failures[0].rows[0]["file"] == "bad.safetensors"
    assert result.blocks


def test_configured_networks_elsewhere_are_no_fault(tmp_path):
    workspace = Workspace(tmp_path)
    leave(workspace)
    result = check_networks(workspace, QualityConfig(), "distill", "guidance_networks/weights")
    assert result.passed
    assert "verified configured ones" in result.notes[0]


def test_weights_say_what_they_are(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(2, 3)}, path, {"card": '{"trained_on": "synthetic", "steps": 4}'})
    described = describe_weights(path)
    assert described["parameters"] == "6"
    assert described["types"] == "F32"
    assert (described["trained_on"], described["steps"]) == ("synthetic", "4")
    path.write_bytes(b"no")
    assert describe_weights(path) == {}
