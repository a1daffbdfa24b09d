"""The mixture as an MLflow model says what `estimate_ages` says; tiny experts, random weights."""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from serving_environment import only_with

from agetf_pipeline.checkpoints.checksums import accept
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.config.relabel import RelabelConfig
from agetf_pipeline.core.errors import DataError, WeightsError
from agetf_pipeline.core.files import read_json
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.experts import estimate_ages
from agetf_pipeline.experts.estimate import load_estimator
from agetf_pipeline.experts.janus import fit_janus
from agetf_pipeline.experts.load import load_experts
from agetf_pipeline.experts.resnet50 import build_resnet50
from agetf_pipeline.experts.vgg16 import build_vgg16
from agetf_pipeline.moe.calibration import Calibration, ExpertCalibration
from agetf_pipeline.registry import mixture_packaging, packaging, tracking
from agetf_pipeline.registry.mixture_columns import COLUMNS
from agetf_pipeline.registry.mixture_packaging import (
    LABEL_FIELDS,
    READING_FIELDS,
    log_mixture,
    mixture_fingerprint,
    pack_mixture,
)

URI = "models:/age-mixture@champion"
FOREIGN = "models/checkpoints/theirs.safetensors"
NUMBERS = [name for name, kind in COLUMNS.items() if kind == "Float64"]


def config_of(relabel: dict | None = None, **vgg16) -> PipelineConfig:
    tiny = {"size": "tiny", "input_px": 32}
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu"},
            "train_experts": {
                "experts": {
                    "janus": {**tiny, "num_steps": 2, "batch_size": 2},
                    "resnet50": tiny,
                    "vgg16": {**tiny, "weights": FOREIGN, **vgg16},
                }
            },
            "caption": {"num_train_faces": 4},
            "relabel": relabel or {},
        }
    )


def make_workspace(root: Path) -> Workspace:
    """Three experts: a folder, a file with a card, and a file that a person imported."""
    torch.manual_seed(0)
    workspace, config = Workspace(root), config_of()
    faces = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)
    fit_janus(
        config, workspace, faces, np.linspace(0, 100, 4), workspace.state / "janus.pt",
        "some faces", workspace.models / "experts" / "janus", {"trained_on": "synthetic"},
    )  # fmt: skip
    card = {"architecture": "resnet50", "size": "tiny", "input_px": 32, "profile": "imagenet"}
    own = workspace.models / "experts" / "resnet50" / "weights.safetensors"
    save_weights(own, build_resnet50("tiny"), {**card, "trained_on": "workspace corpus"})
    foreign = workspace.resolve(FOREIGN)
    foreign.parent.mkdir(parents=True)
    save_file(build_vgg16("tiny").state_dict(), foreign)
    accept(workspace, foreign, hash_file(foreign), "imported", "theirs")
    fitted = {
        expert.name: ExpertCalibration(
            model_version=expert.version, num_images=100, knots_out_years=(20.0, 70.0), mu=0.1
        )
        for expert in load_experts(config, workspace)
    }
    calibration = Calibration(calibrated=True, experts=fitted, conformal_quantile=1.5)
    calibration.save(workspace.models / "moe" / "calibration.json")
    return workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("mixture"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(1)
    for n in range(5):
        pixels = rng.integers(0, 255, (64, 80, 3), np.uint8)
        Image.fromarray(pixels).save(made / f"{n}.png")
    (made / "3.png").write_bytes(b"damaged")
    return made


@pytest.fixture(scope="module")
def registered(workspace) -> Workspace:
    with tracking.connected(tracking.tracking_uri_of(workspace)) as client:
        run = client.create_run(tracking.experiment_id(client, "moe", workspace)).info.run_id
        uri = log_mixture(run, config_of(), workspace)
        client.create_registered_model("age-mixture")
        version = client.create_model_version("age-mixture", uri, run_id=run)
        client.set_registered_model_alias("age-mixture", "champion", version.version)
    return workspace


@pytest.fixture(scope="module")
def model(registered):
    import mlflow

    with tracking.connected(tracking.tracking_uri_of(registered)):
        return mlflow.pyfunc.load_model(URI)


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def assert_same(rows: list[dict], said: pl.DataFrame) -> None:
    """Every number to its last bit, every word."""
    assert len(rows) == said.height
    assert [row["image_index"] for row in rows] == list(range(said.height))
    for name in COLUMNS:
        found = [None if pd.isna(row[name]) else row[name] for row in rows if name in said.columns]
        if name in NUMBERS:
            found = pl.Series(found, dtype=pl.Float64).cast(pl.Float32).to_list()
        if name in said.columns:
            assert found == said[name].to_list(), name


def test_it_says_what_estimate_age_says(model, registered, folder):
    said = estimate_ages(folder, config_of(), registered, aligned=True)
    frame = pd.DataFrame({"image": [path.read_bytes() for path in files_of(folder)]})
    rows = model.predict(frame, params={"aligned": True})
    assert list(rows.columns) == list(COLUMNS)
    assert_same(rows.to_dict("records"), said)
    assert said["age_years"].is_null().to_list() == [False, False, False, True, False]
    assert rows["calibrated"].all()
    assert rows["age_years"].drop(3).between(20, 70).all()
    assert "saw drawn faces" in rows["note"][0]


def test_a_picture_without_an_age_has_the_reason_and_spoils_nothing(model, folder):
    good = (folder / "0.png").read_bytes()
    images = [good, b"hello", b"", good]
    rows = model.predict(pd.DataFrame({"image": images}), params={"aligned": True})
    assert rows["age_years"].isna().tolist() == [False, True, True, False]
    assert rows["age_years"][0] == rows["age_years"][3]
    assert rows["reason"].tolist()[1:3] == [
        "A text file, not a picture.",
        "The file has no bytes: copy it again.",
    ]
    assert rows["num_experts"].isna().tolist() == [False, True, True, False]
    assert model.predict(pd.DataFrame({"image": []}, dtype=object)).empty


def test_a_face_is_looked_for_unless_told_otherwise(model, folder, registered):
    frame = pd.DataFrame({"image": [(folder / "0.png").read_bytes()]})
    rows = model.predict(frame)
    said = estimate_ages(folder / "0.png", config_of(), registered)
    assert rows["reason"][0] == said["reason"][0]
    assert "No face was found" in rows["reason"][0]


def test_what_is_packed_is_whole_and_of_no_machine(workspace, tmp_path, folder):
    pack_mixture(config_of(), workspace, tmp_path / "packed")
    text = (tmp_path / "packed" / "config.json").read_text()
    assert str(workspace.root) not in text
    assert not any(path.is_symlink() for path in (tmp_path / "packed").rglob("*"))
    packed = PipelineConfig.model_validate(json.loads(text))
    # Foreign weights load here, too: what vouched for them came along.
    moved = (tmp_path / "packed").rename(tmp_path / "moved")
    estimator = load_estimator(packed, Workspace(moved))
    versions = [expert.version for expert in load_experts(config_of(), workspace)]
    assert [expert.version for expert in estimator.experts] == versions
    record = read_json(moved / "models" / "checkpoints" / "checksums.json")
    assert list(record) == ["vgg16/theirs.safetensors"]
    # ... and vouches for these bytes alone.
    file = moved / "models" / "checkpoints" / "vgg16" / "theirs.safetensors"
    file.unlink()
    save_file(build_vgg16("tiny").state_dict(), file)
    with pytest.raises(WeightsError, match="It changed since"):
        load_estimator(packed, Workspace(moved))


def test_weights_that_nothing_vouches_for_are_not_packed(workspace, tmp_path):
    other = workspace.root / "other.safetensors"
    save_file(build_vgg16("tiny").state_dict(), other)
    config = config_of(weights="other.safetensors")
    with pytest.raises(WeightsError, match="something vouches for"):
        pack_mixture(config, workspace, tmp_path / "packed")


def test_the_fingerprint_is_that_of_weights_calibration_and_settings(tmp_path):
    workspace = make_workspace(tmp_path / "one")
    first = mixture_fingerprint(config_of(), workspace)
    assert first is not None
    assert len(first) == 64
    (tmp_path / "one").rename(tmp_path / "two")
    workspace = Workspace(tmp_path / "two")
    assert mixture_fingerprint(config_of(), workspace) == first
    # What trained the weights, and what draws reports, labels nothing.
    assert mixture_fingerprint(config_of({"num_review_faces": 3}, lr=0.5), workspace) == first
    assert mixture_fingerprint(config_of({"min_experts": 3}), workspace) != first
    assert mixture_fingerprint(config_of(profile="raw_bgr"), workspace) != first
    calibration = workspace.models / "moe" / "calibration.json"
    kept = calibration.read_bytes()
    Calibration(calibrated=False, reason="too few images").save(calibration)
    assert mixture_fingerprint(config_of(), workspace) not in (first, None)
    calibration.write_bytes(kept)
    named = config_of({"calibration_path": "models/moe/calibration.json"})
    assert mixture_fingerprint(named, workspace) == first
    save_file(build_vgg16("tiny").state_dict(), workspace.resolve(FOREIGN))
    assert mixture_fingerprint(config_of(), workspace) not in (first, None)


def test_there_is_no_fingerprint_of_half_a_mixture(tmp_path):
    workspace = make_workspace(tmp_path)
    assert mixture_fingerprint(PipelineConfig(), workspace) is None
    absent = config_of({"calibration_path": "elsewhere.json"})
    assert mixture_fingerprint(absent, workspace) is None
    with pytest.raises(DataError, match=r"elsewhere\.json"):
        pack_mixture(absent, workspace, tmp_path / "packed")
    workspace.resolve(FOREIGN).unlink()
    assert mixture_fingerprint(config_of(), workspace) is None
    with pytest.raises(WeightsError, match="vgg16"):
        pack_mixture(config_of(), workspace, tmp_path / "again")


def test_every_setting_is_known_to_decide_a_label_or_not():
    trained_by = {
        "weights", "num_steps", "batch_size", "lr", "init_weights", "frozen_fraction",
        "trunk_lr_factor", "validation_fraction", "validate_every", "patience",
    }  # fmt: skip
    assert {*READING_FIELDS, *trained_by} == set(ExpertConfig.model_fields)
    others = {
        "required_experts", "min_calibration_images", "max_calibration_images",
        "calibration_path", "num_review_faces", "log_to_mlflow", "seed",
    }  # fmt: skip
    assert {*LABEL_FIELDS, *others} == set(RelabelConfig.model_fields)


_LOAD = f"""
import base64, importlib.util, json, sys
import mlflow, pandas as pd
assert importlib.util.find_spec("dagster") is None
assert importlib.util.find_spec("agetf_pipeline") is None
model = mlflow.pyfunc.load_model({URI!r})
images = json.load(open("images.json"))
frame = pd.DataFrame({{"image": [base64.b64decode(text) for text in images]}})
rows = model.predict(frame, params={{"aligned": True}})
model.predict(frame)
rows.to_json("rows.json", orient="records", double_precision=15)
"""


@pytest.mark.slow
def test_loads_without_dagster_and_without_the_repository(registered, folder, tmp_path):
    texts = [base64.b64encode(path.read_bytes()).decode() for path in files_of(folder)]
    (tmp_path / "images.json").write_text(json.dumps(texts))
    listed = packaging.requirements(mixture_packaging._needed(config_of()))
    uri = tracking.tracking_uri_of(registered)
    done = subprocess.run(
        [sys.executable, "-c", _LOAD],
        cwd=tmp_path, env=only_with(listed, tmp_path / "gate", uri),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert_same(rows, estimate_ages(folder, config_of(), registered, aligned=True))


def test_the_input_example_is_a_picture_of_nobody():
    frame, params = mixture_packaging.input_example()
    with Image.open(io.BytesIO(frame["image"][0])) as image:
        pixels = np.asarray(image)
    assert (pixels == pixels[:1, :, :1]).all()
    assert params == {"aligned": True}
