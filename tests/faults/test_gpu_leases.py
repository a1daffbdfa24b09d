"""Devices under many runs and random kills: never held twice, never held by the dead."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import pytest
from forked import FORKS, ensure_server, preload
from lease_victim import NUM_DEVICES, materialise_again_and_again

from resources.gpu import GpuResource

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_RUNS = 8
NUM_KILLS = 12
PATIENCE_S = 120

preload("lease_victim")


def held_by(folder: Path) -> list[str]:
    """Devices that cannot be had now."""
    import fcntl

    held = []
    for path in sorted(folder.glob("gpu*.lock")):
        with path.open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path.stem)
    return held


def wait_until(condition) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.02)


def intervals_of(lines: list[str], killed: dict[int, float]) -> dict[str, list[tuple]]:
    """Return each device's intervals (from, to, pid); a killed holder's ends with the kill."""
    intervals, open_ = defaultdict(list), {}
    for line in lines:
        device, pid, what, at = line.split()
        if what == "from":
            assert pid not in open_
            open_[pid] = (device, float(at))
        else:
            intervals[device].append((open_.pop(pid)[1], float(at), pid))
    for pid, (device, since) in open_.items():
        intervals[device].append((since, max(since, killed[int(pid)]), pid))
    return intervals


@pytest.mark.slow
def test_under_random_kills_no_device_is_held_twice_and_none_by_the_dead(tmp_path):
    ensure_server()
    log, locks = tmp_path / "log", tmp_path / "locks"
    chance = random.Random(20261123)

    def start():
        run = FORKS.Process(target=materialise_again_and_again, args=(str(locks), str(log)))
        run.start()
        return run

    def num_lines() -> int:
        return len(log.read_text().splitlines()) if log.exists() else 0

    runs, killed = [start() for _ in range(NUM_RUNS)], {}

    def kill(run) -> None:
        killed[run.pid] = time.monotonic()
        os.kill(run.pid, signal.SIGKILL)
        run.join()

    try:
        wait_until(lambda: num_lines() >= 2 * NUM_RUNS)
        for _ in range(NUM_KILLS):
            seen = num_lines()
            wait_until(lambda seen=seen: num_lines() >= seen + 6)
            time.sleep(chance.uniform(0, 0.1))
            victim = runs.pop(chance.randrange(NUM_RUNS))
            assert victim.is_alive()
            kill(victim)
            runs.append(start())
    finally:
        for run in runs:
            kill(run)

    intervals = intervals_of(log.read_text().splitlines(), killed)
    assert set(intervals) == {str(index) for index in range(NUM_DEVICES)}
    assert len({pid for held in intervals.values() for _, _, pid in held}) >= NUM_RUNS
    for device, held in intervals.items():
        held.sort()
        for (_, end, pid), (start_next, _, pid_next) in itertools.pairwise(held):
            assert end <= start_next, f"device {device}: {pid} and {pid_next} at once"
    assert held_by(locks) == []


_ORPHAN = (
    "import sys; from agetf_pipeline.core.leases import join_leases; join_leases(); "
    "print('joined', flush=True); sys.stdin.read()"
)
_LESSEE = f"""
import signal, subprocess, sys
from resources.gpu import GpuResource
with GpuResource(num_devices=1, lock_folder=sys.argv[1]).lease():
    child = subprocess.Popen([sys.executable, "-c", {_ORPHAN!r}], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"joined\\n"
    print(child.pid, flush=True)
    signal.pause()
"""


@contextmanager
def lessee(folder: Path):
    """A process that leases the one device, and its child, which computes there too."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _LESSEE, str(folder)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_an_orphan_keeps_its_device_until_it_is_dead(tmp_path):
    with lessee(tmp_path) as (process, orphan):
        assert held_by(tmp_path) == ["gpu0"]
        process.kill()
        process.wait()
        assert held_by(tmp_path) == ["gpu0"]
        os.kill(orphan, signal.SIGKILL)
        wait_until(lambda: not held_by(tmp_path))
        with GpuResource(num_devices=1, lock_folder=str(tmp_path)).lease():
            assert held_by(tmp_path) == ["gpu0"]
    assert held_by(tmp_path) == []


def test_who_starts_after_the_lessee_is_gone_does_not_get_the_device(tmp_path, monkeypatch):
    from agetf_pipeline.core import leases
    from agetf_pipeline.core.errors import StageError

    pool = GpuResource(num_devices=1, lock_folder=str(tmp_path))
    with pool.lease():
        names = os.environ[leases.LEASE_VARIABLE]
    monkeypatch.setenv(leases.LEASE_VARIABLE, names)
    with Path(names).open("a") as stream:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(StageError, match="Start the step again"):
            leases.join_leases()


def test_the_file_of_a_lock_says_nothing(tmp_path):
    """What a machine that went down leaves behind: files, and no lock in its kernel."""
    (tmp_path / "gpu0.lock").write_text("somebody")
    with GpuResource(num_devices=1, lock_folder=str(tmp_path)).lease():
        assert held_by(tmp_path) == ["gpu0"]
