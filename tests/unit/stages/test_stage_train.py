"""The stages distill and train on a tiny manifest: outputs, skipping, resuming, messages."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from training_workspace import make_config, make_workspace

from agetf_pipeline.age_transformer.renderer import Renderer
from agetf_pipeline.captions.versions import CaptionVersion, Request, record_version
from agetf_pipeline.core.errors import ConfigError, StageError
from agetf_pipeline.core.files import read_json
from agetf_pipeline.core.progress import progress_listener
from agetf_pipeline.core.weights import read_card, read_state
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.stages import distill, train
from agetf_pipeline.training.guidance import AGE_REGRESSOR, IDENTITY_EMBEDDER, guidance_path
from agetf_pipeline.training.launch import command_of, write_launch_config


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return make_workspace(tmp_path)


def test_distill_and_train_leave_a_model_that_renders_and_skip_when_nothing_changed(workspace):
    config = make_config(guidance="embedding")
    distilled = distill.run(config, workspace)
    assert distilled.status == "ran"
    assert distilled.counts["num_train_images"] == 6
    assert distilled.figures["age_mae_to_labels_years"] is not None
    assert distilled.figures["same_person_auc"] is None  # one person cannot be told from another
    for name in (AGE_REGRESSOR, IDENTITY_EMBEDDER):
        assert read_card(guidance_path(workspace, name))["trained_on"] == "synthetic"

    report = train.run(config, workspace)
    assert report.status == "ran"
    assert report.counts["num_images_seen"] == 8
    assert report.counts["num_pairable_images"] == 6
    assert report.figures["val_paired_l1"] is not None
    assert any("1 of 6 training images have no image embedding" in text for text in report.messages)
    assert any("extrapolation" in text for text in report.messages)
    for relative in report.outputs.values():
        assert workspace.resolve(relative).is_file()
    path = train.weights_path(config, workspace)
    card = read_card(path)
    assert card["trained_on"] == "synthetic"
    assert card["anchors_years"] == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert card["guidance"] == "embedding"
    assert card["model"]["vlm_dim"] == 5
    faces = np.zeros((1, 64, 64, 3), np.uint8)
    assert Renderer.load(path).render(faces, [5, 33.3, 80]).shape == (1, 3, 64, 64, 3)
    metrics = pl.read_csv(workspace.experiments / "tiny" / "train_metrics.csv")
    assert metrics["num_images"].to_list() == [4, 8]
    assert not list((workspace.state / "fit").rglob("*.pt"))

    content = path.read_bytes()
    assert distill.run(config, workspace).status == "skipped"
    assert train.run(config, workspace).status == "skipped"
    # How often a checkpoint is written is no reason to train again; the seed is.
    patient = make_config(guidance="embedding", checkpoint_every_s=99)
    assert train.run(patient, workspace).status == "skipped"
    path.unlink()
    assert train.run(config, workspace).status == "ran"
    assert path.read_bytes() == content
    assert train.run(make_config(guidance="embedding", seed=3), workspace).status == "ran"


def test_captions_guide_training_where_they_are(workspace):
    distill.run(make_config(), workspace)
    config = make_config(guidance="caption")
    report = train.run(config, workspace)
    assert any("3 of 6 training images have no text embedding" in t for t in report.messages)
    assert read_card(train.weights_path(config, workspace))["guidance"] == "caption"
    # Another version of the captions, of which there are none: another training.
    record_version(workspace, CaptionVersion("v", "other"), Request("!", 8))
    again = train.run(config, workspace)
    assert again.status == "ran"
    assert read_card(train.weights_path(config, workspace))["guidance"] == "null"


def test_training_starts_from_given_weights_and_says_when_there_are_no_embeddings(workspace):
    for file in workspace.tables.joinpath("captions").rglob("*.parquet"):
        file.unlink()
    distill.run(make_config(), workspace)
    train.run(make_config(), workspace)
    first = train.weights_path(make_config(), workspace)
    config = make_config(run_name="tuned", init_from=first, guidance="embedding", lr=1e-9)
    report = train.run(config, workspace)
    assert any("caption cache holds no embedding" in text for text in report.messages)
    assert read_card(train.weights_path(config, workspace))["guidance"] == "null"
    faces = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    tuned = Renderer.load(train.weights_path(config, workspace)).render(faces, [20, 80])
    given = Renderer.load(first).render(faces, [20, 80])
    assert np.abs(tuned.astype(int) - given.astype(int)).max() <= 1


def test_without_guidance_networks_training_says_what_to_run(workspace):
    from agetf_pipeline.core.errors import WeightsError

    with pytest.raises(WeightsError, match="run the stage"):
        train.run(make_config(), workspace)


def test_checkpoints_of_a_finished_run_are_weights_alone(workspace):
    distill.run(make_config(), workspace)
    train.run(make_config(), workspace)
    folder = train.checkpoints_path(make_config(), workspace)
    (last,) = folder.glob("images-*")
    assert sorted(path.name for path in last.iterdir()) == [
        "model.safetensors", "state.json", "weights.safetensors",
    ]  # fmt: skip
    saved = train.weights_path(make_config(), workspace)
    assert (last / "weights.safetensors").read_bytes() == saved.read_bytes()
    state = read_json(last / "state.json")
    assert state["config"]["train"]["run_name"] == "tiny"
    assert state["git_commit"] is None or len(state["git_commit"]) == 40
    assert state["data"]["guidance/age_regressor"]
    # Without its weights, a finished run is not trained again.
    content = saved.read_bytes()
    saved.unlink()
    assert train.run(make_config(), workspace).status == "ran"
    assert saved.read_bytes() == content


@pytest.mark.slow
def test_several_processes_train_the_same_and_tell_of_it(workspace):
    distill.run(make_config(), workspace)
    settings = {"batch_size": 8, "num_images": 32, "log_every_images": 8, "precision": "fp32"}
    one = make_config(run_name="one", **settings)
    two = make_config(run_name="two", num_processes=2, checkpoint_every_s=1e-9, **settings)
    train.run(one, workspace)
    told: list[str] = []
    with progress_listener(lambda event: told.append(str(event))):
        report = train.run(two, workspace)
    assert report.status == "ran"
    assert report.counts["num_images_seen"] == 32
    assert any("images-00000016: reconstruction" in text for text in told)
    assert any("train two: 32/32" in text for text in told)
    first, second = (read_state(train.weights_path(config, workspace)) for config in (one, two))
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, atol=1e-5, rtol=1e-5, err_msg=name)
    # Processes are no part of the result: the same run, alone, has nothing to do.
    alone = make_config(run_name="two", **settings)
    assert train.run(alone, workspace).status == "skipped"


@pytest.mark.slow
def test_what_a_process_says_reaches_the_user(workspace):
    with pytest.raises(StageError, match=r"stopped\. Expected weights .* run the stage"):
        train.run(make_config(num_processes=2), workspace)


def test_processes_that_do_not_divide_the_batch_are_refused_at_once(workspace):
    with pytest.raises(ConfigError, match="found 2 for 3"):
        train.run(make_config(num_processes=3), workspace)


@pytest.mark.slow
def test_the_module_is_the_stage(workspace, tmp_path):
    """`python -m agetf_pipeline.training`, alone and under torchrun."""
    config = make_config()
    distill.run(config, workspace)
    file = write_launch_config(config, workspace)
    command = [sys.executable, "-m", "agetf_pipeline.training", "--config", str(file)]
    done = subprocess.run(
        [*command, "train.run_name=module"], capture_output=True, text=True, check=True
    )
    assert "train: done" in done.stderr
    assert train.run(make_config(run_name="module"), workspace).status == "skipped"
    torchrun = command_of(file, 2)
    torchrun.remove("--for-a-stage")
    for expected in ("train: done", "train: nothing new"):
        done = subprocess.run(
            [*torchrun, "train.run_name=both"], capture_output=True, text=True, check=True
        )
        assert expected in done.stderr
    assert train.run(make_config(run_name="both"), workspace).status == "skipped"
    wrong = subprocess.run([*command, "train.lr=no"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "train.lr" in wrong.stderr
