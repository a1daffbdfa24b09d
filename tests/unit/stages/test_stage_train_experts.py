from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import ConfigError, StageError, WeightsError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import read_card, read_state
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.splits import split_of
from agetf_pipeline.data.tables import to_frame, write_table
from agetf_pipeline.stages import train_experts


def _config(experts: dict | None = None, **section) -> PipelineConfig:
    tiny = {"size": "tiny", "input_px": 32, "num_steps": 2, "batch_size": 4}
    experts = {"mivolo": {}, "vgg16": {}} if experts is None else experts
    values = {name: tiny | settings for name, settings in experts.items()}
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu", "num_threads": 1},
            "synthesize": {"enabled": True},
            "train_experts": {"experts": values, **section},
        }
    )


def _fill(workspace: Workspace, ages: bool = True, num_subjects: int = 12) -> pl.DataFrame:
    """A shard of two images a subject, brighter where older."""
    rows = []
    for index in range(2 * num_subjects):
        age = (index * 7) % 90
        path = workspace.raw_caf / "shard-0000" / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 20 + 2 * age, np.uint8)).save(path)
        row = dict.fromkeys(IMAGES.schema.names) | {
            "image_id": f"{index:064x}", "partition": "caf/shard-0000",
            "path": workspace.relative(path), "face_path": workspace.relative(path),
            "raw_name": path.name, "format": "PNG", "mode": "RGB", "stored_width_px": 32,
            "stored_height_px": 32, "width_px": 32, "height_px": 32, "num_bytes": 1,
            "is_grey": True, "flags": [], "subject": f"s{index // 2}",
            "true_age_years": float(age) if ages else None,
        }  # fmt: skip
        rows.append(row)
    frame = to_frame(rows, IMAGES)
    write_table(workspace, IMAGES, "caf/shard-0000", frame)
    return frame


def test_trains_reports_and_is_skipped_when_run_again(tmp_path: Path):
    workspace = Workspace(tmp_path)
    _fill(workspace)
    report = train_experts.run(_config(), workspace)
    assert report.status == "ran"
    assert report.figures["mae_years_mivolo"] is not None
    assert report.figures["final_loss_vgg16"] is not None
    assert any("synthetic" in message for message in report.messages)
    card = read_card(workspace.models / "experts" / "vgg16" / "weights.safetensors")
    assert card["trained_on"] == "synthetic"
    assert train_experts.run(_config(), workspace).status == "skipped"


def test_calibration_subjects_are_never_trained_on(tmp_path: Path):
    workspace, config = Workspace(tmp_path), _config()
    _fill(workspace, num_subjects=40)
    images = train_experts.labelled_images(config, workspace, ["caf/shard-0000"])
    section = config.train_experts
    for row in images.iter_rows(named=True):
        expected = split_of(row["identity"], section.split_fractions, section.split_seed)
        assert row["split"] == expected
    train = images.filter(pl.col("split") == "train")
    calibration = set(images.filter(pl.col("split") == "calibration")["identity"])
    parts = [train_experts._part_of(config, train, name) for name in ("mivolo", "vgg16")]
    assert calibration
    for part in parts:
        assert 0 < part.height < train.height
        assert not calibration & set(part["identity"])
    assert set(parts[0]["identity"]) != set(parts[1]["identity"])


def test_a_finished_expert_is_reused_when_another_is_missing(tmp_path: Path):
    workspace = Workspace(tmp_path)
    _fill(workspace)
    train_experts.run(_config(), workspace)
    paths = {
        name: workspace.models / "experts" / name / "weights.safetensors"
        for name in ("mivolo", "vgg16")
    }
    before = {name: (hash_file(path), path.stat().st_mtime_ns) for name, path in paths.items()}
    paths["vgg16"].unlink()
    assert train_experts.run(_config(), workspace).status == "ran"
    assert paths["mivolo"].stat().st_mtime_ns == before["mivolo"][1]
    assert hash_file(paths["vgg16"]) == before["vgg16"][0]


def test_changed_settings_train_again(tmp_path: Path):
    workspace = Workspace(tmp_path)
    _fill(workspace)
    path = workspace.models / "experts" / "vgg16" / "weights.safetensors"
    train_experts.run(_config({"vgg16": {}}), workspace)
    before = hash_file(path)
    train_experts.run(_config({"vgg16": {"num_steps": 3}}), workspace)
    assert hash_file(path) != before


TUNED = {
    "num_steps": 6, "frozen_fraction": 0.34, "trunk_lr_factor": 0.5, "validation_fraction": 0.3,
    "validate_every": 2, "patience": 2,
}  # fmt: skip


def test_fine_tuning_is_reported_and_drawn(tmp_path: Path):
    workspace = Workspace(tmp_path)
    _fill(workspace, num_subjects=40)
    config = _config({"vgg16": TUNED})
    report = train_experts.run(config, workspace)
    images = train_experts.labelled_images(config, workspace, ["caf/shard-0000"])
    part = train_experts._part_of(config, images.filter(pl.col("split") == "train"), "vgg16")
    learned, held_out = train_experts._hold_out(0.3, part, "vgg16", [])
    assert not set(learned["identity"]) & set(held_out["identity"])
    assert learned.height + held_out.height == part.height
    assert report.counts["num_train_images_vgg16"] == learned.height
    assert report.counts["num_validation_images_vgg16"] == held_out.height
    assert report.counts["best_step_vgg16"] in (2, 4, 6)
    card = read_card(workspace.models / "experts" / "vgg16" / "weights.safetensors")
    assert card["num_validation_subjects"] == held_out["identity"].n_unique()
    validation = card["validation"]
    assert report.figures["validation_mae_years_vgg16"] == validation["mae_years"]
    (message,) = (message for message in report.messages if message.startswith("vgg16: "))
    for part_of_it in ("are kept", f"on {held_out.height} images", "went through all 6 steps"):
        assert part_of_it in message
    assert report.outputs["loss_curve_vgg16"] == "outputs/experts/vgg16/training.png"
    assert (tmp_path / "outputs/experts/vgg16/training.png").stat().st_size > 5_000
    assert len(list((tmp_path / "outputs/experts/vgg16/tensorboard").glob("events*"))) == 1
    assert train_experts.run(config, workspace).status == "skipped"


def test_plain_training_reports_no_validation_and_tensorboard_may_be_off(tmp_path: Path):
    workspace = Workspace(tmp_path)
    _fill(workspace)
    report = train_experts.run(_config({"vgg16": {}}, tensorboard=False), workspace)
    assert not [name for name in report.figures if "validation" in name]
    assert not (tmp_path / "outputs/experts/vgg16/tensorboard").exists()
    assert (tmp_path / "outputs/experts/vgg16/training.png").exists()
    # It changes no weight, so turning it on trains nothing again.
    assert train_experts.run(_config({"vgg16": {}}), workspace).status == "skipped"


def test_too_few_subjects_to_hold_any_out_are_said(tmp_path: Path):
    workspace = Workspace(tmp_path)
    _fill(workspace, num_subjects=3)
    report = train_experts.run(
        _config({"vgg16": {"validation_fraction": 0.01}}, split_fractions={"train": 1.0}), workspace
    )
    assert any("chance left none to validate on" in message for message in report.messages)
    assert "validation_mae_years_vgg16" not in report.figures


def test_initial_weights_are_hashed_verified_and_used(tmp_path: Path):
    from agetf_pipeline.experts.vgg16 import build_vgg16

    workspace = Workspace(tmp_path)
    _fill(workspace)
    state = build_vgg16("tiny").state_dict()
    state["classifier.6.weight"], state["classifier.6.bias"] = (
        torch.ones(1000, 128),
        torch.ones(1000),
    )
    torch.save(state, tmp_path / "imagenet.pth")
    settings = {"init_weights": "imagenet.pth", "frozen_fraction": 0.99}
    with pytest.raises(WeightsError, match="allow_unverified_weights"):
        train_experts.run(_config({"vgg16": settings}), workspace)
    config = _config({"vgg16": settings})
    runtime = config.runtime.model_copy(update={"allow_unverified_weights": True})
    config = config.model_copy(update={"runtime": runtime})
    assert train_experts.run(config, workspace).status == "ran"
    path = workspace.models / "experts" / "vgg16" / "weights.safetensors"
    assert read_card(path)["started_from"] == "ImageNet trunk, fresh head"
    assert torch.equal(read_state(path)["features.0.weight"], state["features.0.weight"])
    assert train_experts.run(config, workspace).status == "skipped"

    state["features.0.weight"] = state["features.0.weight"] + 1
    torch.save(state, tmp_path / "imagenet.pth")
    assert train_experts.run(config, workspace).status == "ran"
    assert torch.equal(read_state(path)["features.0.weight"], state["features.0.weight"])

    (tmp_path / "imagenet.pth").unlink()
    with pytest.raises(WeightsError, match=r"vgg16\.init_weights"):
        train_experts.run(config, workspace)


def test_an_unreadable_training_image_is_left_out_and_said(tmp_path: Path):
    workspace = Workspace(tmp_path)
    frame = _fill(workspace)
    for path in frame["face_path"].head(6):
        workspace.resolve(path).write_bytes(b"no image")
    report = train_experts.run(_config({"vgg16": {}}), workspace)
    assert any("unreadable" in message for message in report.messages)


def test_nothing_labelled_says_what_to_do(tmp_path: Path):
    workspace = Workspace(tmp_path)
    _fill(workspace, ages=False)
    with pytest.raises(StageError, match="Add labelled CAF shards"):
        train_experts.run(_config(), workspace)
    with pytest.raises(StageError, match="trained weights"):
        train_experts.run(_config(), Workspace(tmp_path / "empty"))


def test_no_expert_and_no_weights_are_explained(tmp_path: Path):
    with pytest.raises(ConfigError, match="found none"):
        train_experts.run(_config({}), Workspace(tmp_path))
    given = _config({"vgg16": {"weights": "gone.safetensors"}})
    with pytest.raises(WeightsError, match="gone"):
        train_experts.run(given, Workspace(tmp_path))
    with pytest.raises(WeightsError, match="vgg16"):
        train_experts.run(_config({"vgg16": {}}, enabled=False), Workspace(tmp_path))


def test_given_weights_need_no_labels(tmp_path: Path):
    workspace = Workspace(tmp_path)
    _fill(workspace)
    train_experts.run(_config({"vgg16": {}}), workspace)
    path = workspace.models / "experts" / "vgg16" / "weights.safetensors"
    other = Workspace(tmp_path / "other")
    report = train_experts.run(_config({"vgg16": {"weights": str(path)}}), other)
    assert report.figures == {"mae_years_vgg16": None}
    assert report.outputs == {}
    assert any("No calibration" in message for message in report.messages)
