"""Several small trainings at once: a process each, a thread each.

Networks this small gain little from a second thread, and two processes of one thread do almost
twice the work of one process of two. A result then does not depend on the number of cores either.
"""

import ctypes
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from agetf_pipeline.core.errors import UnavailableError
from agetf_pipeline.core.leases import join_leases
from agetf_pipeline.core.patience import SLICE_S
from agetf_pipeline.core.secrets import keep_out_of_logs

T = TypeVar("T")
_PR_SET_PDEATHSIG = 1
_GRACE_S = 5.0
LOOK_EVERY_S = SLICE_S
MAX_SILENCE_S = 1800.0
"""As `runtime.max_silence_s`, for callers without a config."""


def run_in_processes(
    function: Callable[..., T],
    calls: Sequence[tuple[Any, ...]],
    max_silence_s: float = MAX_SILENCE_S,
) -> list[T]:
    """Call `function` once per tuple of arguments, in processes of their own, a core each.

    Args:
        function: A function of a module (it is found by its name in the other process).
        calls: Arguments of each call; they are pickled.
        max_silence_s: Where for so long none of the processes has used its CPU, they hang.

    Returns:
        The results, in the order of the calls.

    Raises:
        Exception: What a call raised; the others are finished first.
        UnavailableError: The processes hang, or one was killed; none is left.
        BaseException: What interrupted this call (Ctrl-C, a cancelled run); no process is left.
    """
    num_workers = min(len(calls), len(os.sched_getaffinity(0)))
    if num_workers < 1:
        return []
    # Spawned, not forked: a fork of a process whose thread pools have run can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        num_workers, context, initializer=prepare_worker, initargs=(os.getpid(),)
    ) as pool:
        others = set(multiprocessing.active_children())
        try:
            futures = [pool.submit(function, *arguments) for arguments in calls]
            signs = SignsOfLife(max_silence_s)
            while wait(futures, timeout=min(LOOK_EVERY_S, max_silence_s / 4)).not_done:
                workers = set(multiprocessing.active_children()) - others
                if not signs.seen(worker.pid for worker in workers if worker.pid is not None):
                    kill(workers)
                    raise hanging(f"{len(workers)} processes", max_silence_s)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            interrupt(set(multiprocessing.active_children()) - others)
            raise
    try:
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise UnavailableError(
            f"Expected {num_workers} processes to work until the end; found that one was killed "
            "(by the kernel where memory ran out: see dmesg). Close other programs, and run this "
            "again: what the others finished is kept."
        ) from error


class SignsOfLife:
    """Whether processes work, told by the CPU time that they have used.

    It needs no help of theirs, and tells a process that was stopped, waits for a lock that nobody
    gives back, or for a disk that does not answer, from one that computes for long. One that spins
    without an end looks alive.

    Looked at every `min(LOOK_EVERY_S, max_silence_s / 4)`. A longer time between two looks counts
    as that: whoever looks was stopped meanwhile, and they with it.

    Args:
        max_silence_s: How long none of them may have used any.
    """

    def __init__(self, max_silence_s: float) -> None:
        self._max_silence_s = max_silence_s
        self._used: dict[int, int] = {}
        self._silent_s = 0.0
        self._looked_s = time.monotonic()

    def seen(self, pids: Iterable[int]) -> bool:
        """Look at the processes; whether one has worked in the last `max_silence_s`."""
        used = {pid: _cpu_ticks(pid) for pid in pids}
        now_s = time.monotonic()
        between_s = min(now_s - self._looked_s, LOOK_EVERY_S, self._max_silence_s / 4)
        self._silent_s = self._silent_s + between_s if used == self._used else 0.0
        self._used, self._looked_s = used, now_s
        return self._silent_s < self._max_silence_s


def hanging(what: str, max_silence_s: float) -> UnavailableError:
    """Return the error to raise for processes that showed no sign of work, and were ended."""
    return UnavailableError(
        f"Expected signs of work from {what}; found none in {max_silence_s:g} s: stopped, or "
        "waiting for a disk or another process that does not answer. They were ended. See that the "
        "folders of the workspace answer, and run this again: what was finished is kept. For work "
        "that is silent for longer, raise runtime.max_silence_s."
    )


def kill(workers: Iterable[BaseProcess]) -> None:
    """End processes at once, stopped ones too."""
    there = list(workers)
    for worker in there:
        worker.kill()
    for worker in there:
        worker.join()


def _cpu_ticks(pid: int) -> int:
    """Return the CPU time of a process with all its threads, in ticks; -1 where it is gone."""
    with suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(value) for value in fields[11:15])
    return -1


def interrupt(workers: Iterable[BaseProcess]) -> None:
    """End processes: a moment for what tidies up on an exception, then at once."""
    workers = list(workers)
    for worker in workers:
        if worker.pid is not None and worker.is_alive():
            # The pool has a thread of its own that waits for its processes: one may be gone by now.
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGINT)
    deadline_s = time.monotonic() + _GRACE_S
    for worker in workers:
        worker.join(max(0.0, deadline_s - time.monotonic()))
        worker.kill()
    for worker in workers:
        worker.join()  # a killed process is there until somebody waited for it


def prepare_worker(parent: int) -> None:
    """End with the parent, however that dies; one thread; log lines on the terminal."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    join_leases()
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    keep_out_of_logs()
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    logging.getLogger("agetf_pipeline").setLevel(logging.INFO)
