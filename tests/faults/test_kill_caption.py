"""The stage `caption` killed in the middle of a shard: at most one batch is asked for twice."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from caption_victim import CALLS, die_after_a_call, die_inside_a_write, run_stage
from captioned_shard import BATCH, PARTITION, make_config, make_workspace
from forked import KILLED, in_child, preload

from agetf_pipeline.captions.cache import open_embeddings
from agetf_pipeline.captions.versions import current_version
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import CAPTIONS
from agetf_pipeline.data.tables import read_table, table_path

NUM_IMAGES = 11  # three whole batches and two images

preload("caption_victim")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("made"), NUM_IMAGES).root


@pytest.fixture(scope="module")
def undisturbed(made, tmp_path_factory) -> Workspace:
    root = tmp_path_factory.mktemp("undisturbed") / "workspace"
    shutil.copytree(made, root)
    assert in_child(run_stage, root) == 0
    return Workspace(root)


@pytest.fixture
def workspace(made, tmp_path) -> Workspace:
    shutil.copytree(made, tmp_path / "workspace")
    return Workspace(tmp_path / "workspace")


def calls_of(workspace: Workspace) -> Counter[str]:
    return Counter((workspace.root / CALLS).read_text().split())


def assert_finished_like(workspace: Workspace, undisturbed: Workspace) -> None:
    tables = [table_path(each, CAPTIONS, PARTITION) for each in (workspace, undisturbed)]
    assert hash_file(tables[0]) == hash_file(tables[1])
    rows = read_table(workspace, CAPTIONS, [PARTITION])
    assert rows.height == NUM_IMAGES
    version = current_version(make_config(), workspace)
    with_image = rows.drop_nulls("image_embedding")["image_id"].to_list()
    stores = [open_embeddings(each, version) for each in (workspace, undisturbed)]
    assert stores[0].image_ids == with_image
    assert [hash_file(file) for file in stores[0].files] == [
        hash_file(file) for file in stores[1].files
    ]
    assert not list(workspace.root.rglob(".tmp-*"))


@pytest.mark.parametrize("number", [1, 2, 4])
def test_killed_after_the_network_answered_one_batch_is_asked_for_again(
    workspace, undisturbed, number
):
    assert in_child(die_after_a_call, workspace.root, number) == KILLED
    assert in_child(run_stage, workspace.root) == 0
    asked = calls_of(workspace)
    assert len(asked) == NUM_IMAGES
    lost = BATCH if number < 4 else NUM_IMAGES % BATCH
    assert sum(asked.values()) == NUM_IMAGES + lost
    assert_finished_like(workspace, undisturbed)


@pytest.mark.parametrize(
    ("folder", "number", "lost"), [("parts", 2, BATCH), ("tables", 1, 0), ("embeddings", 1, 0)]
)
def test_killed_inside_a_write_nothing_more_is_lost(workspace, undisturbed, folder, number, lost):
    assert in_child(die_inside_a_write, workspace.root, folder, number) == KILLED
    assert in_child(run_stage, workspace.root) == 0
    assert sum(calls_of(workspace).values()) == NUM_IMAGES + lost
    assert_finished_like(workspace, undisturbed)


def test_run_again_no_network_is_called(workspace):
    assert in_child(run_stage, workspace.root) == 0
    before = calls_of(workspace)
    assert sum(before.values()) == NUM_IMAGES
    shutil.rmtree(workspace.root / "stats")  # the reports, without which the stage works anew
    assert in_child(run_stage, workspace.root) == 0
    assert calls_of(workspace) == before
