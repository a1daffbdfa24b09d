"""The caption stage: rows, failures, reuse, and the cache's readers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from captioned_shard import PARTITION, make_config, make_workspace, write_images

from agetf_pipeline.captions import captioner
from agetf_pipeline.captions.cache import index_path, open_embeddings, read_captions
from agetf_pipeline.captions.token_grids import load_grid
from agetf_pipeline.captions.versions import current_version, recorded_version
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import ConfigError, StageError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.images import load_faces
from agetf_pipeline.data.schemas import CAPTIONS, IMAGES
from agetf_pipeline.data.tables import read_table, table_path
from agetf_pipeline.experts.janus import Janus, load_janus
from agetf_pipeline.experts.janus_writing import Written
from agetf_pipeline.stages import caption

NUM_IMAGES = 5


def _config(**section: object) -> PipelineConfig:
    settings = {"batch_size": 2, "max_new_tokens": 32, "max_failed_fraction": 0.2}
    return make_config(**{**settings, **section})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("captions"), NUM_IMAGES)


@pytest.fixture
def workspace(trained: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy to write in, with a network that always says something."""
    import shutil

    shutil.copytree(trained.root, tmp_path, dirs_exist_ok=True)

    _say(monkeypatch, "A young man with a beard.")
    return Workspace(tmp_path)


def _say(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """Make the network write these texts, in turn, in place of its own."""

    def write(janus: object, prompt: np.ndarray, max_new_tokens: int) -> list[Written]:
        return [Written(texts[index % len(texts)], True) for index in range(len(prompt))]

    monkeypatch.setattr(captioner, "write_greedily", write)


def test_every_image_gets_a_row_without_words_of_age(workspace: Workspace) -> None:
    report = caption.run(_config(), workspace, PARTITION)
    rows = read_table(workspace, CAPTIONS, [PARTITION])
    assert rows.height == report.counts["num_images"] == NUM_IMAGES
    assert rows["status"].unique().to_list() == ["ok"]
    assert rows["raw_caption"].unique().to_list() == ["A young man with a beard."]
    assert rows["caption"].unique().to_list() == ["A man with a beard."]
    assert report.counts["num_changed"] == NUM_IMAGES
    width = load_janus(_config(), workspace).model.config.text_config.hidden_size
    assert rows["image_embedding"].list.len().unique().to_list() == [width]
    assert rows["text_embedding"].list.len().unique().to_list() == [width]


def test_running_again_calls_no_network_and_keeps_the_bytes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    caption.run(_config(), workspace, PARTITION)
    path = table_path(workspace, CAPTIONS, PARTITION)
    before = hash_file(path)

    def refuse(*_: object) -> list:
        raise AssertionError("the network was called")

    monkeypatch.setattr(captioner, "caption_faces", refuse)
    assert caption.run(_config(), workspace, PARTITION).status == "skipped"
    # Another threshold runs the stage, but no row is stale.
    again = caption.run(_config(max_failed_fraction=0.5), workspace, PARTITION)
    assert (again.counts["num_reused"], again.counts["num_computed"]) == (NUM_IMAGES, 0)
    assert hash_file(path) == before


def test_only_new_images_and_new_prompts_are_captioned(workspace: Workspace) -> None:
    caption.run(_config(), workspace, PARTITION)
    write_images(workspace, NUM_IMAGES + 2)
    assert caption.run(_config(), workspace, PARTITION).counts["num_computed"] == 2
    other = caption.run(_config(prompt="Who is this?"), workspace, PARTITION)
    assert other.counts["num_computed"] == NUM_IMAGES + 2


def test_a_file_that_is_gone_is_a_row_with_a_reason_and_tried_again(workspace: Workspace) -> None:
    images = read_table(workspace, IMAGES, [PARTITION])
    lost = workspace.resolve(images["face_path"][0])
    kept = lost.read_bytes()
    lost.unlink()
    report = caption.run(_config(), workspace, PARTITION)
    row = read_table(workspace, CAPTIONS, [PARTITION]).row(0, named=True)
    assert (row["status"], row["caption"], row["image_embedding"]) == ("failed", None, None)
    assert lost.name in row["reason"]
    assert report.counts["num_failed"] == 1
    assert any("no caption" in message for message in report.messages)
    # Another picture in its place is not captioned under the first one's name.
    lost.write_bytes(workspace.resolve(images["face_path"][1]).read_bytes())
    caption.run(_config(max_failed_fraction=0.4), workspace, PARTITION)
    row = read_table(workspace, CAPTIONS, [PARTITION]).row(0, named=True)
    assert (row["status"], "changed since ingest" in row["reason"]) == ("failed", True)
    lost.write_bytes(kept)
    again = caption.run(_config(max_failed_fraction=0.3), workspace, PARTITION)
    assert (again.counts["num_computed"], again.counts["num_failed"]) == (1, 0)


def test_too_many_failures_stop_the_stage(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    _say(monkeypatch, "She is 45.", "He is forty.")
    with pytest.raises(StageError, match="nothing but words of age"):
        caption.run(_config(batch_size=2), _of_two(workspace), PARTITION)


def test_without_janus_the_message_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train_experts\.experts\.janus"):
        caption.run(PipelineConfig(), Workspace(tmp_path), PARTITION)


def test_embeddings_are_read_by_image(workspace: Workspace) -> None:
    caption.run(_config(), workspace, PARTITION)
    version = current_version(_config(), workspace)
    assert recorded_version(workspace) == version
    rows = read_table(workspace, CAPTIONS, [PARTITION])
    store = open_embeddings(workspace, version)
    assert store.image_ids == rows["image_id"].to_list()
    for kind in ("image", "text"):
        stored = np.array(rows[f"{kind}_embedding"].to_list(), np.float16)
        np.testing.assert_array_equal(store.of(store.image_ids, kind), stored)


def test_another_prompt_makes_new_rows_and_keeps_the_old(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    caption.run(_config(), workspace, PARTITION)
    first = current_version(_config(), workspace)
    before = read_captions(workspace, PARTITION, first, CAPTIONS.schema.names)
    _say(monkeypatch, "A woman with glasses.")
    other = _config(prompt="Who is this?")
    caption.run(other, workspace, PARTITION)
    second = current_version(other, workspace)
    assert recorded_version(workspace) == second != first
    assert read_table(workspace, CAPTIONS, [PARTITION]).height == 2 * NUM_IMAGES
    assert read_captions(workspace, PARTITION, first, CAPTIONS.schema.names).equals(before)
    new = read_captions(workspace, PARTITION, second)
    assert new["caption"].unique().to_list() == ["A woman with glasses."]
    assert new["prompt"].unique().to_list() == ["Who is this?"]
    assert len(open_embeddings(workspace, second)) == NUM_IMAGES

    # Back to the first prompt: all of it is there, no network is called.
    def refuse(*_: object) -> list:
        raise AssertionError("the network was called")

    monkeypatch.setattr(captioner, "caption_faces", refuse)
    again = caption.run(_config(), workspace, PARTITION)
    assert (again.counts["num_reused"], again.counts["num_computed"]) == (NUM_IMAGES, 0)
    assert recorded_version(workspace) == first
    # An image that is gone takes its rows of every version with it.
    write_images(workspace, NUM_IMAGES - 1)
    caption.run(_config(), workspace, PARTITION)
    assert read_table(workspace, CAPTIONS, [PARTITION]).height == 2 * (NUM_IMAGES - 1)


def test_token_grids_are_kept_when_asked_for_and_made_again_when_lost(
    workspace: Workspace,
) -> None:
    caption.run(_config(), workspace, PARTITION)
    config = _config(token_grid=True)
    assert caption.run(config, workspace, PARTITION).counts["num_computed"] == NUM_IMAGES
    version = current_version(config, workspace)
    rows = read_captions(workspace, PARTITION, version)
    pooled = open_embeddings(workspace, version).of(rows["image_id"].to_list())
    for path, vector in zip(rows["token_grid_path"], pooled, strict=True):
        grid = load_grid(workspace, path)
        assert (grid.dtype, grid.shape) == (np.float16, (16, len(vector)))
        np.testing.assert_allclose(grid.astype(np.float32).mean(axis=0), vector, atol=2e-3)
    workspace.resolve(rows["token_grid_path"][2]).unlink()
    table_path(workspace, CAPTIONS, PARTITION).touch()
    again = caption.run(_config(token_grid=True, max_failed_fraction=0.5), workspace, PARTITION)
    assert again.counts["num_computed"] == 1


def test_a_lost_or_damaged_index_is_made_again(workspace: Workspace) -> None:
    caption.run(_config(), workspace, PARTITION)
    version = current_version(_config(), workspace)
    path = index_path(workspace, PARTITION, version)
    whole = path.read_bytes()
    for damage in (None, whole[: len(whole) // 2], b""):
        path.unlink() if damage is None else path.write_bytes(damage)
        assert len(open_embeddings(workspace, version)) == NUM_IMAGES
        assert path.read_bytes() == whole


def test_a_batch_is_shared_among_the_cores_and_gives_the_same_rows(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(workspace, 18)
    path, sizes, whole = table_path(workspace, CAPTIONS, PARTITION), [], captioner.caption_faces

    def counting(janus: Janus, faces: np.ndarray, *others: object) -> list:
        sizes.append((len(faces), torch.get_num_threads()))
        return whole(janus, faces, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(captioner, "caption_faces", counting)
    caption.run(_config(batch_size=16), workspace, PARTITION)
    alone, before = read_table(workspace, CAPTIONS, [PARTITION]), torch.get_num_threads()
    path.unlink()
    two = _config(batch_size=16).model_copy(
        update={"runtime": _config().runtime.model_copy(update={"num_threads": 2})}
    )
    try:
        caption.run(two, workspace, PARTITION)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    # Two parts of eight on a core each, and what is too few to share on both.
    assert sizes[:2] == [(16, 1), (2, 1)]
    assert sorted(sizes[2:]) == [(2, 2), (8, 1), (8, 1)]
    together = read_table(workspace, CAPTIONS, [PARTITION])
    words = ["image_id", "raw_caption", "caption", "status"]
    assert together.select(words).equals(alone.select(words))


def test_for_a_gpu_faces_are_decoded_by_several_threads_in_order(workspace: Workspace) -> None:
    images = read_table(workspace, IMAGES, [PARTITION])
    for device in ("cpu", "cuda"):
        janus: Any = SimpleNamespace(device=torch.device(device), input_px=32)
        faces, reasons = caption._load_faces(workspace, images, janus)
        assert reasons == [None] * NUM_IMAGES
        for face, path in zip(faces, images["face_path"], strict=True):
            np.testing.assert_array_equal(face, load_faces(workspace, [path], 32)[0])


def _of_two(workspace: Workspace) -> Workspace:
    write_images(workspace, 2)
    return workspace
