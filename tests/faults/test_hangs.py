"""Processes that are stopped in the middle of their work: noticed, ended, and said."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from agetf_pipeline.core import background, parallel
from agetf_pipeline.core.background import map_ahead
from agetf_pipeline.core.errors import UnavailableError
from agetf_pipeline.core.parallel import run_in_processes
from agetf_pipeline.training import launch
from agetf_pipeline.training.loading import BatchReader, batches

_PATIENCE_S = 60


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _stop_myself(folder: Path, stops: bool) -> int:
    (folder / str(os.getpid())).touch()
    if stops:
        os.kill(os.getpid(), signal.SIGSTOP)
    return os.getpid()


def test_a_stopped_training_is_ended_and_the_stage_says_so(tmp_path: Path):
    calls = [(tmp_path, True), (tmp_path, False)]
    # The patience covers what an interpreter may wait for on a busy machine before it begins.
    with pytest.raises(UnavailableError, match=r"none in 6 s.*runtime\.max_silence_s"):
        run_in_processes(_stop_myself, calls, max_silence_s=6)
    started = [int(file.name) for file in tmp_path.iterdir()]
    assert started
    assert not [pid for pid in started if _lives(pid)]


def _compute(seconds: float) -> int:
    end_s = time.process_time() + seconds
    while time.process_time() < end_s:
        pass
    return os.getpid()


def test_one_that_computes_for_longer_than_the_patience_is_left_alone():
    # The patience counts from the last sign of work, not from the start.
    (pid,) = run_in_processes(_compute, [(5.0,)], max_silence_s=4)
    assert pid != os.getpid()


def _kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_that_is_killed_is_said_too():
    with pytest.raises(UnavailableError, match="was killed"):
        run_in_processes(_kill_myself, [()])


class StoppingSampler:
    """Draws batches in whichever process, and stops that one at a step."""

    batch_size = 2

    def __init__(self, folder: Path, stop_at: int) -> None:
        self.folder, self.stop_at = folder, stop_at

    def draw(self, step: int, rows: object) -> "StoppingSampler":
        (self.folder / str(os.getpid())).touch()
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)
        drawn = StoppingSampler.__new__(StoppingSampler)
        vars(drawn).update(ages_years=np.full(2, step, np.float32))
        return drawn


def test_a_stopped_reader_of_batches_is_ended_and_its_fellows(tmp_path: Path):
    reader = BatchReader(StoppingSampler(tmp_path, 4))  # type: ignore[arg-type]
    seen = []
    with (
        closing(batches(reader, 0, 40, num_workers=2, max_silence_s=6)) as arriving,
        pytest.raises(UnavailableError, match="2 processes that read batches"),
    ):
        seen.extend(loaded.step for loaded in arriving)
    assert seen == [0, 1, 2, 3]
    assert not [file.name for file in tmp_path.iterdir() if _lives(int(file.name))]


def test_a_disk_that_does_not_answer_does_not_hold_the_stage_up(monkeypatch: pytest.MonkeyPatch):
    never = threading.Event()
    # What comes is waited for as long as it takes; the test is not about how quick a thread is.
    patience = iter([[60.0], [60.0], [0.01] * 8])
    monkeypatch.setattr(background, "slices_of", lambda _: next(patience))

    def read(number: int) -> int:
        if number == 2:
            never.wait()  # stands for a read of a network share that is away
        return number

    with closing(map_ahead(read, range(5), max_silence_s=60)) as ahead:
        assert [next(ahead), next(ahead)] == [0, 1]
        with pytest.raises(UnavailableError, match="a disk does not answer"):
            next(ahead)
    never.set()


def test_whoever_leaves_while_a_read_hangs_is_not_held_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(background, "_GRACE_S", 0.05)
    never, left = threading.Event(), threading.Event()

    def read(number: int) -> int:
        if number == 1:
            never.wait()
        return number

    def leave() -> None:
        with suppress(MemoryError), closing(map_ahead(read, range(4))) as ahead:
            next(ahead)
            raise MemoryError("a step does not fit")
        left.set()

    threading.Thread(target=leave, daemon=True).start()
    assert left.wait(_PATIENCE_S)
    never.set()


WORKING = """
import subprocess, sys, time
from agetf_pipeline.core.background import map_ahead
from agetf_pipeline.training.launch import _lines_of
def work(number):
    time.sleep(0.4)
    return number
for number in map_ahead(work, range(6), max_silence_s=3.2):
    print("read", number, flush=True)
code = "import time\\nfor i in range(6): print(i, flush=True); time.sleep(.4)"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
for line in _lines_of(child, 3.2):
    print("line", line.strip(), flush=True)
"""


def test_a_process_that_was_stopped_and_goes_on_finds_nothing_hanging():
    # Ctrl-Z and fg, or a paused container: by the clock, everybody was silent for longer.
    process = subprocess.Popen(
        [sys.executable, "-c", WORKING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line.strip())
        if seen[-1] in ("read 1", "line 1"):
            time.sleep(0.2)  # into the wait for the next
            process.send_signal(signal.SIGSTOP)
            time.sleep(4)
            process.send_signal(signal.SIGCONT)
    assert process.wait(_PATIENCE_S) == 0, process.stderr.read() if process.stderr else ""
    assert seen == [f"{what} {number}" for what in ("read", "line") for number in range(6)]


def test_who_looked_for_signs_of_life_and_was_stopped_goes_on(monkeypatch: pytest.MonkeyPatch):
    now_s = [0.0]
    monkeypatch.setattr(parallel.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(parallel, "_cpu_ticks", lambda _: 7)  # it does nothing
    signs = parallel.SignsOfLife(1800)
    assert signs.seen([1])
    now_s[0] += 10_000  # a night in which everything was stopped
    assert signs.seen([1])
    for _ in range(358):
        now_s[0] += 5
        assert signs.seen([1])
    now_s[0] += 5
    assert not signs.seen([1])


def test_an_error_of_time_is_the_function_s_own():
    def read(number: int) -> int:
        raise TimeoutError("of the disk itself")

    with pytest.raises(TimeoutError, match="of the disk itself"):
        list(map_ahead(read, range(5), max_silence_s=60))


SILENT = """
import json, os, signal, sys, time
progress = {"description": "train", "num_done": 1, "num_total": 2, "elapsed_s": 1.0, "detail": ""}
print(json.dumps({"event": "progress", "progress": progress}), flush=True)
if os.fork() == 0:
    os.setsid()  # as the ranks of torchrun
open(sys.argv[1] + "/" + str(os.getpid()), "w").close()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_ranks_that_say_nothing_are_ended_with_all_they_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from training_workspace import make_config

    from agetf_pipeline.core.progress import progress_listener
    from agetf_pipeline.core.workspace import Workspace

    config = make_config(num_processes=2, batch_size=2)
    silent = config.runtime.model_copy(update={"max_silence_s": 12.0})
    config = config.model_copy(update={"runtime": silent})
    monkeypatch.setattr(launch, "_GRACE_S", 0.5)
    monkeypatch.setattr(
        launch, "command_of",
        lambda file, number: [launch.sys.executable, "-c", SILENT, str(tmp_path)],
    )  # fmt: skip
    events: list = []
    with (
        progress_listener(events.append),
        pytest.raises(UnavailableError, match=r"processes that train.*none in 12 s"),
    ):
        launch.launch(config, Workspace(tmp_path / "workspace"))
    assert events[0].num_done == 1
    pids = [int(file.name) for file in tmp_path.iterdir() if file.name.isdigit()]
    assert len(pids) == 2
    _wait_for(lambda: not any(map(_lives, pids)))


def _wait_for(done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
