"""The stage `recheck` with experts that read the brightness of a picture as its age."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import StageError, WeightsError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace
from agetf_pipeline.data.schemas import ENHANCED, ENHANCED_AGES, IMAGES, LABELS
from agetf_pipeline.data.tables import read_table, to_frame, write_table
from agetf_pipeline.evaluation.judges import IDENTITY_KIND
from agetf_pipeline.evaluation.networks import IdentityEmbedder
from agetf_pipeline.experts.base import Readings
from agetf_pipeline.experts.predict import read_faces
from agetf_pipeline.moe.calibration import uncalibrated
from agetf_pipeline.moe.labels import label_predictions
from agetf_pipeline.quality.rule import count_broken
from agetf_pipeline.quality.rules import RULES
from agetf_pipeline.stages import recheck

PARTITION = "caf/one"
EXPERTS = ("resnet50", "vgg16")


@dataclass(frozen=True)
class Brightness:
    name: str
    version: str = "v1"
    trained_on: str = "nothing"

    def read(self, faces_NHWC: np.ndarray) -> Readings:
        age = faces_NHWC.mean(axis=(1, 2, 3)).astype(np.float32) / 2.55
        reasons = tuple(None for _ in age)
        return Readings(age, np.full_like(age, 4.0), None, None, reasons)


def make_config(limit: float = 3.0, **guards: Any) -> PipelineConfig:
    experts = {name: {"size": "tiny", "input_px": 32} for name in EXPERTS}
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu", "num_threads": 1},
            "train_experts": {"experts": experts},
            "recheck": {"max_age_shift_years": limit, **guards},
        }
    )


def picture(grey: int, seed: int = 0) -> np.ndarray:
    """A grey picture with structure whose mean does not move."""
    noise = np.random.default_rng(seed).integers(-20, 21, (16, 32))
    return np.repeat((grey + np.concatenate([noise, -noise]))[..., None], 3, axis=2)


def save(workspace: Workspace, name: str, rgb: np.ndarray) -> str:
    path = workspace.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb.astype(np.uint8)).save(path)
    return hash_file(path)


def save_embedder(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    card = {"kind": IDENTITY_KIND, "width": 8, "embedding_dim": 16, "input_px": 64}
    save_weights(path, IdentityEmbedder(8, 16), card | {"trained_on": "nothing"})
    return path


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    """Three pictures: untouched, enhanced faithfully, and made much brighter."""
    workspace = Workspace(tmp_path)
    images, enhanced = [], []
    for number, (before, after, touched) in enumerate(
        [(100, 100, False), (101, 104, True), (102, 153, True)]
    ):
        image_id = save(workspace, f"raw/{number}.png", picture(before))
        sha256 = save(workspace, f"enhanced/{number}.png", picture(after, seed=int(touched)))
        row = dict.fromkeys(IMAGES.schema.names)
        row |= {"image_id": image_id, "partition": PARTITION, "path": f"raw/{number}.png"}
        row |= {"face_path": f"raw/{number}.png", "raw_name": "x", "format": "PNG", "mode": "RGB"}
        row |= {"stored_width_px": 32, "stored_height_px": 32, "width_px": 32, "height_px": 32}
        images.append(row | {"num_bytes": 1, "is_grey": False, "flags": []})
        made = dict.fromkeys(ENHANCED.schema.names)
        made |= {"image_id": image_id, "status": "ok", "enhanced_path": f"enhanced/{number}.png"}
        made |= {"enhanced_sha256": sha256, "colourised": touched, "super_resolved": False}
        made |= {"input_width_px": 32, "input_height_px": 32, "settings_version": "s"}
        made |= {"colourfulness_before": 0.0, "colourfulness_after": 30.0 if touched else 0.0}
        enhanced.append(made | {"output_width_px": 32, "output_height_px": 32})
    experts = [Brightness(name) for name in EXPERTS]
    table = to_frame(images, IMAGES)
    write_table(workspace, IMAGES, PARTITION, table)
    write_table(workspace, ENHANCED, PARTITION, to_frame(enhanced, ENHANCED))
    calibration = uncalibrated("a test", 0.9)
    write_text(workspace.models / "moe" / "calibration.json", "{}")
    faces = np.stack([np.asarray(Image.open(workspace.root / row["path"])) for row in images])
    predictions = read_faces(experts, faces, [row["image_id"] for row in images], 8)
    config = make_config()
    labels = label_predictions(predictions, table, calibration, config.relabel)
    write_table(workspace, LABELS, PARTITION, labels)
    monkeypatch.setattr("agetf_pipeline.experts.load.load_experts", lambda *_: experts)
    monkeypatch.setattr("agetf_pipeline.experts.load.weights_hash", lambda *_: "0")
    monkeypatch.setattr("agetf_pipeline.moe.calibration.load_calibration", lambda _: calibration)
    return workspace


def rows_of(workspace: Workspace) -> pl.DataFrame:
    return read_table(workspace, ENHANCED_AGES, [PARTITION])


def refuse_experts(monkeypatch) -> None:
    def refuse(*_):
        raise AssertionError("an expert was loaded")

    monkeypatch.setattr("agetf_pipeline.experts.load.load_experts", refuse)


def test_a_shift_beyond_the_threshold_is_flagged(workspace):
    report = recheck.run(make_config(), workspace, PARTITION)
    rows = rows_of(workspace)
    shifts = rows.sort("age_before_years")["age_shift_years"].to_list()
    np.testing.assert_allclose(shifts, [0, 3 / 2.55, 51 / 2.55], atol=1e-3)
    flagged = rows.filter("flagged")
    assert flagged["flags"].to_list() == [["age"]]
    assert "+20.0 years" in flagged["reason"][0]
    assert (report.counts["num_read"], report.counts["num_flagged"]) == (2, 1)
    assert (report.counts["num_flagged_age"], report.counts["num_excluded"]) == (1, 1)
    assert report.figures["mean_abs_age_shift_years"] == pytest.approx(27 / 2.55, abs=1e-3)


def test_a_new_threshold_changes_verdicts_and_loads_no_network(workspace, monkeypatch):
    recheck.run(make_config(), workspace, PARTITION)
    before = rows_of(workspace)
    assert recheck.run(make_config(), workspace, PARTITION).status == "skipped"
    refuse_experts(monkeypatch)
    guards = {"min_colourfulness_gain": 40.0, "min_sharpness_ratio": 2.0}
    report = recheck.run(make_config(1.0, **guards), workspace, PARTITION)
    after = rows_of(workspace)
    assert report.counts["num_flagged_age"] == report.counts["num_flagged_colour"] == 2
    assert report.counts["num_flagged_sharpness"] == 3
    verdicts = ("flags", "flagged", "reason")
    assert after.drop(verdicts).equals(before.drop(verdicts))
    recheck.run(make_config(), workspace, PARTITION)
    assert rows_of(workspace).equals(before)


def test_what_cannot_be_read_is_null_with_the_reason(workspace):
    broken = workspace.root / "enhanced" / "2.png"
    broken.write_bytes(b"not an image")
    report = recheck.run(make_config(), workspace, PARTITION)
    row = rows_of(workspace).filter(pl.col("age_shift_years").is_null())
    assert row.height == report.counts["num_without_shift"] == 1
    assert row["not_compared"][0].startswith("no age after")
    assert "no sharpness ratio: Expected a readable image" in row["not_compared"][0]
    assert row["sharpness_ratio"][0] is None
    assert not row["flagged"][0]
    assert report.counts["num_excluded"] == 0


def test_without_a_model_identity_is_null_with_the_reason(workspace):
    report = recheck.run(make_config(), workspace, PARTITION)
    rows = rows_of(workspace)
    assert rows["identity_similarity"].null_count() == rows.height
    assert rows["not_compared"].str.contains("no identity model is configured").all()
    assert report.figures["mean_identity_similarity"] is None
    assert any("identity was not compared" in message for message in report.messages)


def test_a_model_that_is_added_reads_identities_and_no_age_again(workspace, monkeypatch):
    recheck.run(make_config(), workspace, PARTITION)
    ages = rows_of(workspace)["age_after_years"].to_list()
    refuse_experts(monkeypatch)
    path = save_embedder(workspace.models / "embedder.safetensors")
    config = make_config(identity_weights=str(path), min_identity_similarity=1.0)
    report = recheck.run(config, workspace, PARTITION)
    rows = rows_of(workspace)
    assert rows["age_after_years"].to_list() == ages
    assert rows["not_compared"].null_count() == rows.height
    assert rows["identity_version"].unique().to_list() == [hash_file(path)]
    untouched = rows.filter(~pl.col("colourised"))
    assert untouched["identity_similarity"].to_list() == [1.0]
    assert untouched["flags"].to_list() == [[]]
    assert (rows.filter("colourised")["identity_similarity"] < 1).all()
    assert report.counts["num_identity_compared"] == report.counts["num_flagged_identity"] == 2
    assert any("trained on nothing" in message for message in report.messages)
    evaluators = workspace.models / "evaluators"
    evaluators.mkdir()
    (evaluators / "identity_embedder.safetensors").write_bytes(path.read_bytes())
    again = recheck.run(make_config(identity_weights=str(path)), workspace, PARTITION)
    assert any("evaluation measures with" in message for message in again.messages)


def test_unverified_identity_weights_are_refused(workspace):
    path = workspace.models / "adaface.ckpt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(WeightsError, match="vouches"):
        recheck.run(make_config(identity_weights=str(path)), workspace, PARTITION)


def test_what_is_excluded_follows_the_config(workspace):
    strict = {"min_colourfulness_gain": 40.0}  # flags both touched images; the age flags one
    for exclude, expected in (
        (["age", "identity"], 1), (["colour"], 2), (["age", "colour"], 2), (["sharpness"], 0),
    ):  # fmt: skip
        config = make_config(exclude=exclude, **strict)
        report = recheck.run(config, workspace, PARTITION)
        assert report.counts["num_excluded"] == expected
        assert report.counts["num_flagged"] == 2
    config = make_config(exclude_flagged=False, **strict)
    assert recheck.run(config, workspace, PARTITION).counts["num_excluded"] == 0


def test_a_person_finds_the_distributions_and_the_flagged_images_ranked(workspace):
    report = recheck.run(make_config(limit=1.0), workspace, PARTITION)
    paths = {name: workspace.resolve(path) for name, path in report.outputs.items()}
    assert set(paths) == {"enhanced_ages", "guards", "flagged_csv", "flagged_sheet"}
    with Image.open(paths["guards"]) as image:
        assert image.width > 1000
    table = pl.read_csv(paths["flagged_csv"])
    assert table["age_shift_years"].to_list() == pytest.approx([20.0, 3 / 2.55], abs=1e-3)
    assert table["severity"].is_sorted(descending=True)
    first = {name: path.read_bytes() for name, path in paths.items()}
    for path in paths.values():
        path.unlink()
    recheck.run(make_config(limit=1.0), workspace, PARTITION)
    assert {name: path.read_bytes() for name, path in paths.items()} == first
    clean = recheck.run(make_config(limit=60.0), workspace, PARTITION)
    assert "flagged_sheet" not in clean.outputs
    assert not paths["flagged_sheet"].exists()


def test_the_table_keeps_the_rules_and_the_rules_notice(workspace):
    recheck.run(make_config(), workspace, PARTITION)
    rows = rows_of(workspace)
    critical = {rule.name: rule for rule in RULES["enhanced_ages"] if rule.severity == "critical"}
    assert all(count_broken(rule, rows).num_broken == 0 for rule in critical.values())
    for name, spoilt in {
        "similarity_in_range": rows.with_columns(identity_similarity=pl.lit(1.5)),
        "sharpness_ratio_in_range": rows.with_columns(sharpness_ratio=pl.lit(float("inf"))),
        "flag_explained": rows.with_columns(reason=pl.lit(None, pl.String)),
        "flags_agree": rows.with_columns(flagged=pl.lit(True)),
        "unknown_explained": rows.with_columns(not_compared=pl.lit(None, pl.String)),
    }.items():
        assert count_broken(critical.pop(name), spoilt).num_broken > 0, name
    assert not critical


def test_other_corpora_are_refused(workspace):
    with pytest.raises(StageError, match="CAF shard"):
        recheck.run(make_config(), workspace, FFHQ_PARTITION)
