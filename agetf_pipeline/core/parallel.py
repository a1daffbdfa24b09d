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
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from agetf_pipeline.core.leases import join_leases
from agetf_pipeline.core.secrets import keep_out_of_logs

T = TypeVar("T")
_PR_SET_PDEATHSIG = 1
_GRACE_S = 5.0


def run_in_processes(function: Callable[..., T], calls: Sequence[tuple[Any, ...]]) -> list[T]:
    """Call `function` once per tuple of arguments, in processes of their own, a core each.

    Args:
        function: A function of a module (it is found by its name in the other process).
        calls: Arguments of each call; they are pickled.

    Returns:
        The results, in the order of the calls.

    Raises:
        Exception: What a call raised; the others are finished first.
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
            wait(futures)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _interrupt(set(multiprocessing.active_children()) - others)
            raise
    return [future.result() for future in futures]


def _interrupt(workers: set[BaseProcess]) -> None:
    """End processes: a moment for what tidies up on an exception, then at once."""
    for worker in workers:
        if worker.pid is not None and worker.is_alive():
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
