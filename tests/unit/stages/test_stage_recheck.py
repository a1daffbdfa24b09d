"""The stage `recheck` with experts that read the brightness of a picture as its age."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from PIL import Image

from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace
from agetf_pipeline.data.schemas import ENHANCED, ENHANCED_AGES, IMAGES, LABELS
from agetf_pipeline.data.tables import read_table, to_frame, write_table
from agetf_pipeline.experts.base import Readings
from agetf_pipeline.experts.predict import read_faces
from agetf_pipeline.moe.calibration import uncalibrated
from agetf_pipeline.moe.labels import label_predictions
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


def make_config(limit: float = 3.0) -> PipelineConfig:
    experts = {name: {"size": "tiny", "input_px": 32} for name in EXPERTS}
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu", "num_threads": 1},
            "train_experts": {"experts": experts},
            "recheck": {"max_age_shift_years": limit},
        }
    )


def save(workspace: Workspace, name: str, grey: int) -> str:
    path = workspace.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((32, 32, 3), grey, np.uint8)).save(path)
    return hash_file(path)


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    """Three pictures: untouched, enhanced faithfully, and made much brighter."""
    workspace = Workspace(tmp_path)
    images, enhanced = [], []
    for number, (before, after, touched) in enumerate(
        [(100, 100, False), (101, 104, True), (102, 153, True)]
    ):
        image_id = save(workspace, f"raw/{number}.png", before)
        sha256 = save(workspace, f"enhanced/{number}.png", after)
        row = dict.fromkeys(IMAGES.schema.names)
        row |= {"image_id": image_id, "partition": PARTITION, "path": f"raw/{number}.png"}
        row |= {"face_path": f"raw/{number}.png", "raw_name": "x", "format": "PNG", "mode": "RGB"}
        row |= {"stored_width_px": 32, "stored_height_px": 32, "width_px": 32, "height_px": 32}
        images.append(row | {"num_bytes": 1, "is_grey": False, "flags": []})
        made = dict.fromkeys(ENHANCED.schema.names)
        made |= {"image_id": image_id, "status": "ok", "enhanced_path": f"enhanced/{number}.png"}
        made |= {"enhanced_sha256": sha256, "colourised": touched, "super_resolved": False}
        made |= {"input_width_px": 32, "input_height_px": 32, "settings_version": "s"}
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


def test_a_shift_beyond_the_threshold_is_flagged(workspace):
    report = recheck.run(make_config(), workspace, PARTITION)
    rows = read_table(workspace, ENHANCED_AGES, [PARTITION])
    shifts = rows.sort("age_before_years")["age_shift_years"].to_list()
    np.testing.assert_allclose(shifts, [0, 3 / 2.55, 51 / 2.55], atol=1e-3)
    flagged = rows.filter("flagged")
    assert flagged.height == 1
    assert "+20.0 years" in flagged["reason"][0]
    assert (report.counts["num_read"], report.counts["num_flagged"]) == (2, 1)


def test_a_new_threshold_changes_verdicts_and_nothing_else(workspace):
    recheck.run(make_config(), workspace, PARTITION)
    before = read_table(workspace, ENHANCED_AGES, [PARTITION])
    assert recheck.run(make_config(), workspace, PARTITION).status == "skipped"
    report = recheck.run(make_config(limit=1.0), workspace, PARTITION)
    after = read_table(workspace, ENHANCED_AGES, [PARTITION])
    assert report.counts["num_computed"] == 1
    assert after["flagged"].sum() == 2
    assert after.drop("flagged", "reason").equals(before.drop("flagged", "reason"))


def test_what_cannot_be_read_is_null_with_the_reason(workspace):
    broken = workspace.root / "enhanced" / "2.png"
    broken.write_bytes(b"not an image")
    report = recheck.run(make_config(), workspace, PARTITION)
    row = read_table(workspace, ENHANCED_AGES, [PARTITION]).filter(
        pl.col("age_shift_years").is_null()
    )
    assert row.height == report.counts["num_without_shift"] == 1
    assert row["reason"][0].startswith("no age after")
    assert not row["flagged"][0]


def test_other_corpora_are_refused(workspace):
    with pytest.raises(StageError, match="CAF shard"):
        recheck.run(make_config(), workspace, FFHQ_PARTITION)
