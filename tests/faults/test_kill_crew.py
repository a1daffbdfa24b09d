"""Several processes at one partition of a stage, killed: nothing is lost, nobody is left behind."""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from crew_victim import NUM_CHUNKS, NUM_IMAGES, PARTITION, join, make_workspace, run
from forked import FORKS, ensure_server, in_child, preload

from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.work import load_report
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import PREDICTIONS
from agetf_pipeline.data.tables import table_path

_PATIENCE_S = 90

preload("crew_victim")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("made")).root


@pytest.fixture(scope="module")
def alone(made, tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("alone") / "workspace"
    shutil.copytree(made, root)
    assert in_child(run, root, 1) == 0
    return hash_file(table_path(Workspace(root), PREDICTIONS, PARTITION))


@pytest.fixture
def workspace(made, tmp_path) -> Workspace:
    shutil.copytree(made, tmp_path / "workspace")
    return Workspace(tmp_path / "workspace")


def wait_for(done: Callable[[], bool]) -> None:
    until_s = time.monotonic() + _PATIENCE_S
    while not done():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def assert_finished(workspace: Workspace, alone: str) -> None:
    assert hash_file(table_path(workspace, PREDICTIONS, PARTITION)) == alone
    report = load_report(workspace, "predict", PARTITION)
    assert report is not None
    counts = report.counts
    assert counts["num_reused"] + counts["num_computed"] == counts["num_images"] == NUM_IMAGES
    left = [path for path in workspace.state.rglob("*") if path.is_file()]
    assert all(path.is_relative_to(workspace.state / "locks") for path in left), left
    assert not list(workspace.root.rglob(".tmp-*"))


def test_workers_of_a_run_and_one_that_joins_make_the_same_table(workspace, alone):
    ensure_server()
    joining = FORKS.Process(target=join, args=(workspace.root,))
    joining.start()
    assert in_child(run, workspace.root, 2) == 0
    joining.join(_PATIENCE_S)
    assert joining.exitcode == 0
    assert_finished(workspace, alone)


def test_no_worker_outlives_a_run_that_is_killed_and_the_next_one_goes_on(workspace, alone):
    ensure_server()
    leader = FORKS.Process(target=run, args=(workspace.root, 3))
    leader.start()
    assert leader.pid is not None
    pid = leader.pid
    parts = workspace.state / "parts" / PREDICTIONS.name / PARTITION
    wait_for(lambda: any(parts.glob("[!.]*.parquet")))
    workers = children_of(pid)
    assert len(workers) >= 2
    leader.kill()
    leader.join()
    wait_for(lambda: not any(map(is_alive, workers)))
    num_done = len(list(parts.glob("[!.]*.parquet")))
    assert 0 < num_done <= NUM_CHUNKS
    assert in_child(run, workspace.root, 1) == 0
    report = load_report(workspace, "predict", PARTITION)
    assert report is not None
    assert report.counts["num_reused"] == num_done * NUM_IMAGES // NUM_CHUNKS
    assert_finished(workspace, alone)
