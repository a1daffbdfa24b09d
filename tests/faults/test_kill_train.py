"""Training killed: inside the writing of a checkpoint, and with processes that it started."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import KILLED, in_child, preload
from train_victim import (
    SETTINGS,
    die_before_the_rename,
    die_inside_a_checkpoint,
    run_stage,
)
from training_workspace import make_config, make_workspace

from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.stages import distill, train
from agetf_pipeline.training import checkpoints

PATIENCE_S = 240  # for a machine that does other things too

preload("train_victim")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    workspace = make_workspace(tmp_path_factory.mktemp("made") / "workspace")
    distill.run(make_config(), workspace)
    return workspace.root


@pytest.fixture(scope="module")
def undisturbed(made, tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("undisturbed") / "workspace"
    shutil.copytree(made, root)
    assert in_child(run_stage, root) == 0
    return hashes(Workspace(root))


@pytest.fixture
def workspace(made, tmp_path) -> Workspace:
    shutil.copytree(made, tmp_path / "workspace")
    return Workspace(tmp_path / "workspace")


def hashes(workspace: Workspace) -> dict[str, str]:
    """Every file of weights that the run left, and its metrics."""
    files = [*workspace.models.rglob("*.safetensors"), *workspace.experiments.rglob("*.csv")]
    return {path.relative_to(workspace.root).as_posix(): hash_file(path) for path in files}


def assert_all_whole(workspace: Workspace, expected: int) -> None:
    folder = train.checkpoints_path(make_config(), workspace)
    found = sorted(folder.glob("images-*"))
    assert len(found) == expected
    identity = checkpoints._identity(found[-1])
    assert identity is not None
    length = SETTINGS["num_images"]
    while found:
        assert checkpoints._newest_whole(folder, identity, length) == found[-1]
        shutil.move(found.pop(), workspace.root / "aside")
        shutil.rmtree(workspace.root / "aside")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["weights.safetensors", "model.safetensors", "optimizer.pt"])
def test_killed_inside_a_file_of_a_checkpoint_the_run_goes_on_from_the_one_before(
    workspace, undisturbed, file
):
    assert in_child(die_inside_a_checkpoint, workspace.root, file, 3) == KILLED
    copy = Workspace(workspace.root.with_name("copy"))
    shutil.copytree(workspace.root, copy.root)
    assert_all_whole(copy, expected=2)
    assert in_child(run_stage, workspace.root) == 0
    assert hashes(workspace) == undisturbed
    assert not list(workspace.models.rglob(".tmp-*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 5])
def test_killed_before_a_checkpoint_gets_its_name_nothing_half_is_left(
    workspace, undisturbed, number
):
    # Each checkpoint is synced twice: its folder, and the folder of all.
    assert in_child(die_before_the_rename, workspace.root, number) == KILLED
    assert in_child(run_stage, workspace.root) == 0
    assert hashes(workspace) == undisturbed
    assert not list(workspace.models.rglob(".tmp-*"))


def processes_of(workspace: Workspace) -> list[int]:
    """Processes, not zombies, that were started with the launch config of this workspace."""
    wanted = str(workspace.state / "launch").encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.1)


@pytest.fixture
def training(workspace) -> Iterator[subprocess.Popen]:
    """The stage in a process, with two processes of its own that are training."""
    victim = Path(__file__).with_name("train_victim.py")
    parent = subprocess.Popen(
        [sys.executable, str(victim), str(workspace.root)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stderr=subprocess.DEVNULL,
    )
    folder = train.checkpoints_path(make_config(), workspace)
    try:
        wait_until(lambda: list(folder.glob("images-*")) or parent.poll() is not None)
        assert parent.poll() is None
        assert len(processes_of(workspace)) == 3  # torchrun, and two
        yield parent
    finally:
        for pid in processes_of(workspace):
            os.kill(pid, signal.SIGKILL)
        parent.kill()
        parent.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_stage_that_started_it(workspace, training, number):
    training.send_signal(number)
    training.wait(timeout=PATIENCE_S)
    if number != signal.SIGINT:
        # Nobody could tidy up: they notice it themselves.
        wait_until(lambda: not processes_of(workspace))
    assert processes_of(workspace) == []


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others_and_the_stage(workspace, training):
    children = [pid for pid in processes_of(workspace) if not is_torchrun(pid)]
    os.kill(children[-1], signal.SIGKILL)
    assert training.wait(timeout=PATIENCE_S) == 1
    assert processes_of(workspace) == []


def is_torchrun(pid: int) -> bool:
    return b"torch.distributed.run" in Path(f"/proc/{pid}/cmdline").read_bytes()
