"""Processes that are stopped in the middle of their work: noticed, ended, and said."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

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
    with pytest.raises(UnavailableError, match=r"none in 2 s.*runtime\.max_silence_s"):
        run_in_processes(_stop_myself, calls, max_silence_s=2)
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
    (pid,) = run_in_processes(_compute, [(3.0,)], max_silence_s=1.5)
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
        closing(batches(reader, 0, 40, num_workers=2, max_silence_s=2)) as arriving,
        pytest.raises(UnavailableError, match="2 processes that read batches"),
    ):
        seen.extend(loaded.step for loaded in arriving)
    assert seen == [0, 1, 2, 3]
    assert not [file.name for file in tmp_path.iterdir() if _lives(int(file.name))]


def test_a_disk_that_does_not_answer_does_not_hold_the_stage_up():
    never = threading.Event()

    def read(number: int) -> int:
        if number == 2:
            never.wait()  # stands for a read of a network share that is away
        return number

    with closing(map_ahead(read, range(5), max_silence_s=0.2)) as ahead:
        assert [next(ahead), next(ahead)] == [0, 1]
        with pytest.raises(UnavailableError, match="a disk does not answer"):
            next(ahead)
    never.set()


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
    silent = config.runtime.model_copy(update={"max_silence_s": 2.0})
    config = config.model_copy(update={"runtime": silent})
    monkeypatch.setattr(launch, "_GRACE_S", 0.5)
    monkeypatch.setattr(
        launch, "command_of",
        lambda file, number: [launch.sys.executable, "-c", SILENT, str(tmp_path)],
    )  # fmt: skip
    events: list = []
    with (
        progress_listener(events.append),
        pytest.raises(UnavailableError, match=r"processes that train.*none in 2 s"),
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
