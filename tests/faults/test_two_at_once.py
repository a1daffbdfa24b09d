"""Two runs of one stage at once: the second waits, and skips; a killed one holds nobody up."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from main_job import REPOSITORY

from agetf_pipeline.config import load_config, workspace_of
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.stages import ingest, synthesize

PARTITION = "ffhq_aging"
_PATIENCE_S = 120
HOLDER = """
import sys, time
from pathlib import Path
from agetf_pipeline.core.work import StageReport, run_once
from agetf_pipeline.core.workspace import Workspace

root, seconds = Path(sys.argv[1]), float(sys.argv[2])
(root / "out.txt").unlink(missing_ok=True)

def work():
    (root / f"begun-{sys.argv[3]}").touch()
    time.sleep(seconds)
    (root / "out.txt").write_text("done")
    return StageReport("slow", outputs={"out": "out.txt"})

print(run_once(Workspace(root), "slow", {}, "1", {}, work).status)
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """A workspace with a few drawn faces, not ingested."""
    root = tmp_path_factory.mktemp("drawn")
    config = _config(root)
    synthesize.run(config, workspace_of(config))
    return root


def _config(root: Path):
    return load_config(REPOSITORY / "configs" / "test.yaml", _overrides(root))


def _overrides(root: Path) -> list[str]:
    return [f"workspace.root={root}", "synthesize.num_ffhq_images=12",
            "synthesize.num_caf_shards=1", "synthesize.num_subjects_per_shard=2"]  # fmt: skip


def _tables(workspace: Workspace) -> dict[str, str]:
    return {
        str(path.relative_to(workspace.root)): hash_file(path)
        for path in sorted(workspace.tables.rglob("*.parquet"))
    }


def _start(command: Sequence[str], log: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, *command], cwd=REPOSITORY, env=environment, stdout=stream,
            stderr=subprocess.STDOUT,
        )  # fmt: skip


def _wait_for(done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def _has_open(pid: int, path: Path) -> bool:
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            if link.readlink() == path:
                return True
    return False


def test_of_two_commands_one_works_and_the_other_skips(drawn: Path, tmp_path: Path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    for root in (alone, together):
        shutil.copytree(drawn, root)
    config = _config(alone)
    ingest.run(config, workspace_of(config), PARTITION)

    workspace = Workspace(together)
    lock = workspace.state / "locks" / "stages" / f"ingest {PARTITION}.lock"
    command = [
        "-m", "agetf_pipeline.cli", "ingest", "--config", str(REPOSITORY / "configs/test.yaml"),
        "--partition", PARTITION, *_overrides(together),
    ]  # fmt: skip
    logs = [tmp_path / "1.log", tmp_path / "2.log"]
    with exclusive_lock(lock, "the start"):
        processes = [_start(command, log) for log in logs]
        # Both wait for the lock: whoever gets it, the other is there already.
        _wait_for(lambda: all(_has_open(process.pid, lock) for process in processes))
    codes = [process.wait(_PATIENCE_S) for process in processes]
    said = [log.read_text() for log in logs]
    assert codes == [0, 0], said
    assert sum("nothing new, kept" in text for text in said) == 1, said
    assert sum(": started" in text for text in said) == 1, said
    assert _tables(workspace) == _tables(Workspace(alone)) != {}


def test_whoever_is_killed_holds_nobody_up(tmp_path: Path):
    first = _start(["-c", HOLDER, str(tmp_path), "600", "1"], tmp_path / "1.log")
    _wait_for((tmp_path / "begun-1").exists)
    second = _start(["-c", HOLDER, str(tmp_path), "0", "2"], tmp_path / "2.log")
    lock = Workspace(tmp_path).state / "locks" / "stages" / "slow.lock"
    _wait_for(lambda: _has_open(second.pid, lock))
    assert second.poll() is None
    assert not (tmp_path / "begun-2").exists()
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert second.wait(_PATIENCE_S) == 0
    assert (tmp_path / "2.log").read_text().strip() == "ran"
    assert (tmp_path / "out.txt").read_text() == "done"
