"""The stages distill and train on a tiny manifest: outputs, skipping, resuming, messages."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from agetf_pipeline.age_transformer.renderer import Renderer
from agetf_pipeline.captions.versions import CaptionVersion, Request, record_version
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.weights import read_card
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import group_of
from agetf_pipeline.data.schemas import CAPTIONS, TRAINING_MANIFEST
from agetf_pipeline.data.tables import ALL_PARTITIONS, to_frame, write_table
from agetf_pipeline.stages import distill, train
from agetf_pipeline.training.guidance import AGE_REGRESSOR, IDENTITY_EMBEDDER, guidance_path


def make_config(**changes) -> PipelineConfig:
    values = {
        "synthesize": {"enabled": True},
        "runtime": {"device": "cpu", "num_threads": 1},
        "distill": {"num_steps": 2, "batch_size": 4, "width": 8},
        "train": {
            "run_name": "tiny", "model": "tiny-64", "num_images": 8, "batch_size": 2,
            "ages_per_image": 2, "log_every_images": 4, "num_sample_faces": 2, **changes,
        },
    }  # fmt: skip
    return PipelineConfig.model_validate(values)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """Three people of the training split, one of the validation split, two photographs each."""
    workspace = Workspace(tmp_path)
    rng = np.random.default_rng(0)
    rows, captions = [], []
    (tmp_path / "faces").mkdir()
    for index in range(8):
        face = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(face).save(tmp_path / "faces" / f"{index}.png")
        age = 10.0 + 9 * index
        rows.append(
            {
                "image_id": f"{index:064x}",
                "partition": "caf/shard-0000",
                "split": "val" if index >= 6 else "train",
                "identity": f"caf:{index // 2}",
                "face_path": f"faces/{index}.png",
                "enhanced_path": None,
                "age_years": age,
                "variance_years2": 1.0,
                "age_group": group_of(age),
                "curriculum_weight": 1.0,
                "label_source": "corpus",
                "has_caption": index != 0,
            }
        )
        embedding = None if index == 0 else rng.normal(size=5).astype(np.float16).tolist()
        row = dict.fromkeys(CAPTIONS.schema.names)
        row |= {"image_id": f"{index:064x}", "model_version": "v", "prompt_hash": "p"}
        row |= {"prompt": "?", "status": "ok", "raw_caption": "a face", "caption": "a face"}
        row |= {"image_embedding": embedding, "text_embedding": embedding if index < 4 else None}
        captions.append(row)
    write_table(workspace, TRAINING_MANIFEST, ALL_PARTITIONS, to_frame(rows, TRAINING_MANIFEST))
    write_table(workspace, CAPTIONS, "caf/shard-0000", to_frame(captions, CAPTIONS))
    record_version(workspace, CaptionVersion("v", "p"), Request("?", 8))
    return workspace


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
