"""`estimate_ages` and `agetf estimate-age`: tiny experts with random weights on drawn faces."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from agetf_pipeline import cli
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError, WeightsError
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.experts import estimate, estimate_ages
from agetf_pipeline.experts.load import load_experts
from agetf_pipeline.experts.resnet50 import build_resnet50
from agetf_pipeline.experts.vgg16 import build_vgg16
from agetf_pipeline.moe.calibration import Calibration, ExpertCalibration


def _config(batch_size: int | None = None, **relabel) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu"},
            "train_experts": {
                "experts": {
                    name: {"size": "tiny", "input_px": 32} for name in ("resnet50", "vgg16")
                }
            },
            "predict": {"batch_size": batch_size},
            "relabel": relabel,
        }
    )


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    torch.manual_seed(0)
    made = Workspace(tmp_path / "workspace")
    for name, module in (("resnet50", build_resnet50("tiny")), ("vgg16", build_vgg16("tiny"))):
        card = {"architecture": name, "size": "tiny", "input_px": 32, "profile": "imagenet"}
        path = made.models / "experts" / name / "weights.safetensors"
        save_weights(path, module, {**card, "trained_on": "workspace corpus"})
    return made


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    made = tmp_path / "photographs"
    made.mkdir()
    for n in range(5):
        pixels = rng.integers(0, 255, (64, 80, 3), np.uint8)
        Image.fromarray(pixels).save(made / f"{n}.png")
    (made / "3.png").write_bytes(b"damaged")
    (made / "notes.txt").write_text("not a photograph")
    return made


def test_every_photograph_gets_a_row_in_order(workspace, folder):
    first = folder / "4.png"
    ages = estimate_ages([str(first), folder], _config(), workspace, aligned=True)
    assert ages.schema == pl.Schema(estimate.SCHEMA)
    names = [path.rpartition("/")[2] for path in ages["path"]]
    assert names == ["4.png", "0.png", "1.png", "2.png", "3.png", "4.png"]
    assert ages["age_years"].is_null().to_list() == [False, False, False, False, True, False]
    assert ages["reason"][4]
    assert ages["num_experts"].drop_nulls().unique().to_list() == [2]
    read = ages.drop_nulls("age_years")
    assert read["age_years"].is_between(0, 100).all()
    assert (read["interval_low_years"] <= read["age_years"]).all()
    assert (read["age_years"] <= read["interval_high_years"]).all()
    # The same picture twice has the same age twice.
    assert ages["age_years"][0] == ages["age_years"][5]


def test_without_a_calibration_every_row_says_so(workspace, folder):
    ages = estimate_ages(folder, _config(), workspace, aligned=True)
    assert ages["calibrated"].to_list() == [False] * 5
    assert all("no calibration at models/moe/calibration.json" in note for note in ages["note"])


def test_a_calibration_of_the_workspace_is_used(workspace, folder):
    config = _config()
    fitted = {
        expert.name: ExpertCalibration(
            model_version=expert.version, num_images=100, knots_out_years=(40.0, 50.0)
        )
        for expert in load_experts(config, workspace)
    }
    calibration = Calibration(calibrated=True, experts=fitted, conformal_quantile=1.5)
    calibration.save(workspace.models / "moe" / "calibration.json")
    ages = estimate_ages(folder, config, workspace, aligned=True)
    assert ages["calibrated"].all()
    assert ages["note"].null_count() == ages.height
    assert ages["age_years"].drop_nulls().is_between(40, 50).all()
    other = {name: expert.model_copy(update={"model_version": "other"})
             for name, expert in fitted.items()}  # fmt: skip
    calibration.model_copy(update={"experts": other}).save(
        workspace.models / "moe" / "calibration.json"
    )
    with pytest.raises(DataError, match="by version other"):
        estimate_ages(folder, config, workspace, aligned=True)


def test_a_calibration_that_the_config_names_must_be_there(workspace, folder):
    with pytest.raises(DataError, match=r"elsewhere\.json"):
        estimate_ages(folder, _config(calibration_path="elsewhere.json"), workspace)


def test_experts_that_saw_drawn_faces_are_named(workspace, folder):
    path = workspace.models / "experts" / "vgg16" / "weights.safetensors"
    card = {"architecture": "vgg16", "size": "tiny", "input_px": 32, "profile": "imagenet"}
    save_weights(path, build_vgg16("tiny"), {**card, "trained_on": "synthetic"})
    note = estimate_ages(folder, _config(), workspace, aligned=True)["note"][0]
    assert note.startswith("vgg16 saw drawn faces alone")


def test_faces_are_read_a_chunk_at_a_time(workspace, folder, monkeypatch):
    for n in range(10, 22):
        (folder / f"{n}.png").write_bytes((folder / "0.png").read_bytes())
    whole = estimate_ages(folder, _config(32), workspace, aligned=True)
    num_read, num_done, most_waiting = 0, 0, 0
    really_read, really_label = estimate.read_face, estimate._label

    def read(path, aligned):
        nonlocal num_read, most_waiting
        num_read += 1
        most_waiting = max(most_waiting, num_read - num_done)
        return really_read(path, aligned)

    def label(chunk, *arguments):
        nonlocal num_done
        labels = really_label(chunk, *arguments)
        num_done += len(chunk)
        return labels

    monkeypatch.setattr(estimate, "read_face", read)
    monkeypatch.setattr(estimate, "_label", label)
    chunked = estimate_ages(folder, _config(2), workspace, aligned=True)
    assert num_read == num_done == 17
    assert most_waiting <= 8  # one chunk with the networks, two ready, one being read
    assert chunked["path"].to_list() == whole["path"].to_list()
    np.testing.assert_allclose(
        chunked["age_years"].drop_nulls(), whole["age_years"].drop_nulls(), atol=1e-3
    )


def test_what_is_missing_is_said(workspace, folder, tmp_path):
    (workspace.models / "experts" / "vgg16" / "weights.safetensors").unlink()
    with pytest.raises(WeightsError, match="vgg16"):
        estimate_ages(folder, _config(), workspace)
    with pytest.raises(DataError, match="found nothing there"):
        estimate_ages([folder, tmp_path / "absent"], _config(), workspace)


def test_a_config_file_names_the_workspace_and_the_command_writes(
    workspace, folder, tmp_path, capsys
):
    config = tmp_path / "configs" / "mine.yaml"
    config.parent.mkdir()
    config.write_text(
        "workspace: {root: workspace}\nruntime: {device: cpu}\ntrain_experts:\n  experts:\n"
        "    resnet50: {size: tiny, input_px: 32}\n    vgg16: {size: tiny, input_px: 32}\n"
    )
    ages = estimate_ages(folder / "0.png", str(config), aligned=True)
    assert ages["age_years"].null_count() == 0
    out = tmp_path / "ages.csv"
    arguments = ["estimate-age", "--config", str(config), "--aligned", "--out", str(out)]
    twice = ["--input", str(folder / "0.png"), "--input", str(folder)]
    assert cli.main([*arguments, *twice]) == 0
    written = pl.read_csv(out)
    assert written.height == 6
    assert written["age_years"][0] == pytest.approx(ages["age_years"][0], abs=1e-3)
    assert written["calibrated"].to_list() == [False] * 6
    assert "0.png: " in capsys.readouterr().out
    assert cli.main([*arguments[:-1], str(tmp_path / "ages.txt"), *twice]) == 1
    assert "Expected --out to end in" in capsys.readouterr().err


def test_the_package_is_imported_without_networks():
    heavy = "[name for name in ('torch', 'polars') if name in sys.modules]"
    code = f"import agetf_pipeline.experts, sys; print({heavy})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
