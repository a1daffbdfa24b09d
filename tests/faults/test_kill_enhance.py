"""The stage `enhance` killed at any moment: nothing half-written is ever seen, and it goes on.

Children are forked from a server that has the networks' packages loaded, so that the time before a
kill is time at work.
"""

import os
import random
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from enhance_victim import die_between_picture_and_sidecar, die_inside_a_write, run_stage
from enhanced_shard import PARTITION, make_workspace, pictures_of, write_network
from forked import KILLED, in_child, preload
from PIL import Image

from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import ENHANCED
from agetf_pipeline.data.tables import read_table, table_path
from agetf_pipeline.enhance.audit import audit_partition
from agetf_pipeline.enhance.sidecar import read_sidecar

NUM_IMAGES = 24
NUM_KILLS = 12

preload("enhance_victim")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A shard that was never enhanced."""
    return make_workspace(tmp_path_factory.mktemp("made"), NUM_IMAGES).root


@pytest.fixture
def workspace(tmp_path, made) -> Workspace:
    return copy_of(made, tmp_path / "workspace")


def copy_of(root: Path, target: Path) -> Workspace:
    shutil.copytree(root, target)
    return Workspace(target)


@pytest.fixture(scope="module")
def undisturbed(made, tmp_path_factory) -> tuple[Workspace, float]:
    """The same shard, enhanced in one go, and the seconds that it took."""
    workspace = copy_of(made, tmp_path_factory.mktemp("undisturbed") / "workspace")
    in_child(os.getpid)  # starts the server
    started_s = time.monotonic()
    assert in_child(run_stage, workspace.root) == 0
    return workspace, time.monotonic() - started_s


def assert_nothing_half_written(workspace: Workspace) -> None:
    """Check every visible file of the shard, and every row of the table and of finished parts."""
    for path in (workspace.processed / "caf_enhanced" / "one").glob("[!.]*"):
        if path.suffix == ".json":
            read_sidecar(path)
        else:
            with Image.open(path) as image:
                image.load()
    tables = [table_path(workspace, ENHANCED, PARTITION)]
    tables += (workspace.state / "parts" / ENHANCED.name / PARTITION).glob("[!.]*.parquet")
    for table in tables:
        rows = (
            pq.ParquetFile(table, page_checksum_verification=True).read().to_pylist()
            if table.exists()
            else []
        )
        for row in rows:
            assert hash_file(workspace.resolve(row["enhanced_path"])) == row["enhanced_sha256"]
            described = read_sidecar(workspace.resolve(row["sidecar_path"]))
            assert described.output.sha256 == row["enhanced_sha256"]


def assert_finished_like(workspace: Workspace, undisturbed: Workspace) -> None:
    assert audit_partition(workspace, PARTITION) == []
    assert len(pictures_of(workspace)) == NUM_IMAGES
    assert pictures_of(workspace) == pictures_of(undisturbed)
    tables = [table_path(each, ENHANCED, PARTITION) for each in (workspace, undisturbed)]
    assert hash_file(tables[0]) == hash_file(tables[1])
    leftovers = [path for path in workspace.root.rglob(".tmp-*") if path.is_file()]
    assert leftovers == []


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_files(made, undisturbed, tmp_path):
    reference, duration_s = undisturbed
    moments = random.Random(20261122)
    num_kills = num_finished = num_partly = 0
    while num_kills < NUM_KILLS:
        workspace = copy_of(made, tmp_path / f"{num_finished}")
        code = None
        while code != 0:
            code = in_child(run_stage, workspace.root, kill_after_s=moments.uniform(0, duration_s))
            num_kills += code == KILLED
            assert_nothing_half_written(workspace)
            done = (workspace.state / "parts" / "enhanced" / PARTITION).glob("[!.]*.parquet")
            num_partly += code == KILLED and any(done)
        assert_finished_like(workspace, reference)
        num_finished += 1
    assert num_partly > 0, "no kill came between two chunks: raise NUM_IMAGES"


@pytest.mark.parametrize(("suffix", "number"), [(".png", 1), (".png", 6), (".json", 5)])
def test_killed_inside_a_write_it_goes_on(workspace, undisturbed, suffix, number):
    assert in_child(die_inside_a_write, workspace.root, suffix, number) == KILLED
    assert list(workspace.processed.rglob(".tmp-*"))
    assert_nothing_half_written(workspace)
    assert "temporary" in {finding.kind for finding in audit_partition(workspace, PARTITION)}
    assert in_child(run_stage, workspace.root) == 0
    assert_finished_like(workspace, undisturbed[0])


def test_killed_between_picture_and_sidecar_it_goes_on(workspace, undisturbed):
    assert in_child(die_between_picture_and_sidecar, workspace.root, 4) == KILLED
    assert_nothing_half_written(workspace)
    found = {finding.kind for finding in audit_partition(workspace, PARTITION)}
    assert {"orphan", "gap"} <= found <= {"orphan", "gap", "unfinished"}
    assert in_child(run_stage, workspace.root) == 0
    assert_finished_like(workspace, undisturbed[0])


def test_killed_while_a_newer_network_overwrites_it_says_so_and_goes_on(undisturbed, tmp_path):
    workspace = copy_of(undisturbed[0].root, tmp_path / "killed")
    reference = copy_of(undisturbed[0].root, tmp_path / "reference")
    for each in (workspace, reference):
        write_network(each, "esrgan", seed=7)
    assert in_child(run_stage, reference.root) == 0
    assert in_child(die_between_picture_and_sidecar, workspace.root, 4) == KILLED
    # No row speaks of another network's picture: those that will be overwritten left first.
    errors = [finding for finding in audit_partition(workspace, PARTITION) if finding.is_error]
    assert {finding.kind for finding in errors} <= {"gap", "orphan"}
    rows = read_table(workspace, ENHANCED, [PARTITION])
    assert not {finding.image_id for finding in errors} & set(rows["image_id"])
    assert not rows["super_resolved"].any()
    assert in_child(run_stage, workspace.root) == 0
    assert_finished_like(workspace, reference)
    assert pictures_of(workspace) != pictures_of(undisturbed[0])
