"""Several small trainings at once: a process each, a thread each.

Networks this small gain little from a second thread, and two processes of one thread do almost
twice the work of one process of two. A result then does not depend on the number of cores either.
"""

import ctypes
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_PR_SET_PDEATHSIG = 1


def run_in_processes(function: Callable[..., T], calls: Sequence[tuple[Any, ...]]) -> list[T]:
    """Call `function` once per tuple of arguments, in processes of their own, a core each.

    Args:
        function: A function of a module (it is found by its name in the other process).
        calls: Arguments of each call; they are pickled.

    Returns:
        The results, in the order of the calls.

    Raises:
        Exception: What a call raised; the others are finished first.
    """
    num_workers = min(len(calls), len(os.sched_getaffinity(0)))
    if num_workers < 1:
        return []
    # Spawned, not forked: a fork of a process whose thread pools have run can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        num_workers, context, initializer=prepare_worker, initargs=(os.getpid(),)
    ) as pool:
        futures = [pool.submit(function, *arguments) for arguments in calls]
    return [future.result() for future in futures]


def prepare_worker(parent: int) -> None:
    """End with the parent, however that dies; one thread; log lines on the terminal."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    logging.getLogger("agetf_pipeline").setLevel(logging.INFO)
