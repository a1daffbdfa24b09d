"""Many processes at one partition of a stage: those that a run starts, and those started by hand.

Whoever joins runs the stage's own function, which computes rows for the run that leads, and ends
where that run puts the table together (`data/crew.py`).
"""

import importlib
import logging
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.ending import describe_bug, describe_ending
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.parallel import prepare_worker
from agetf_pipeline.core.work import is_running, joining
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.crew import ShiftEndedError
from agetf_pipeline.data.crew_board import (
    JOINABLE,
    Board,
    crew_folder,
    list_boards,
    read_board,
)
from agetf_pipeline.data.hands import Hands

_LOGGER = logging.getLogger(__name__)
_POLL_S = 0.5


@dataclass(frozen=True)
class Joined:
    """What joining did at one partition.

    Attributes:
        partition: The partition.
        num_chunks: Chunks that were computed here.
        num_rows: Their rows.
        is_abandoned: Whether the run that was joined was ended before it put the table together.
    """

    partition: str
    num_chunks: int
    num_rows: int
    is_abandoned: bool = False


def unclaimed_first(
    workspace: Workspace, name: str, partitions: Iterable[str | None]
) -> Iterator[str | None]:
    """Yield partitions such that those which another process is at come last.

    So the same command, started several times, shares the partitions out. Those that are still
    being worked on in the end are waited for, as ever.
    """
    left = deque(partitions)
    num_busy = 0
    while left:
        partition = left.popleft()
        with ExitStack() as stack:
            free = _take(stack, workspace, name, partition)
            if num_busy < len(left) and not free:
                left.append(partition)
                num_busy += 1
                continue
            num_busy = 0
            yield partition


def _take(stack: ExitStack, workspace: Workspace, name: str, partition: str | None) -> bool:
    """Take a partition until the stack closes; False where another process is at it.

    By a lock of its own: a run takes the stage's only after it has looked at its inputs, and two
    processes that begin at once would go from shard to shard together, one waiting for the other.
    """
    lock = workspace.state / "locks" / "taken" / name / f"{partition or 'all'}.lock"
    try:
        stack.enter_context(exclusive_lock(lock, f"{name} {partition or ''}".rstrip(), wait=False))
    except StageError:
        return False
    return not is_running(workspace, name, partition)


def hands_of(
    name: str, config: PipelineConfig, workspace: Workspace, partition: str | None
) -> tuple[PipelineConfig, Hands | None]:
    """Return the workers that `runtime.num_workers` asks for, and the config of each of them.

    Where `runtime.num_threads` is not set, the cores are shared out between them.
    """
    num_workers = config.runtime.num_workers
    if name not in JOINABLE or partition is None:
        return config, None
    if num_workers > 1 and config.runtime.num_threads is None:
        configured = os.environ.get("OMP_NUM_THREADS", "")
        num_cores = int(configured) if configured.isdigit() else len(os.sched_getaffinity(0))
        config = _with_runtime(config, num_threads=max(1, num_cores // num_workers))

    def start(number: int) -> BaseProcess:
        # Spawned, not forked: a fork of a process whose thread pools have run can hang.
        worker = multiprocessing.get_context("spawn").Process(
            target=_work, args=(os.getpid(), number, name, config, workspace, partition)
        )
        worker.start()
        return worker

    return config, Hands(num_workers, start, config.runtime.max_silence_s)


def join_stage(
    name: str,
    config: PipelineConfig,
    workspace: Workspace,
    partition: str | None = None,
    wait_s: float = 0.0,
    shown: bool = True,
) -> list[Joined]:
    """Compute for runs of a stage that other processes lead, until nothing is left.

    Args:
        name: The stage's verb, one of `JOINABLE`.
        config: The configuration of the run that leads.
        workspace: Its workspace.
        partition: The partition to join; None: whichever is worked on, one after the other.
        wait_s: How long to wait for a run that puts something up, while none is there.
        shown: Whether to show the progress.

    Returns:
        What was done, by partition.

    Raises:
        StageError: The stage cannot be joined, or was started with something else.
    """
    if name not in JOINABLE:
        raise StageError(
            f"Expected a stage that works chunk by chunk, one of {', '.join(JOINABLE)}; found "
            f"{name!r}, which one process runs at a time."
        )
    run = importlib.import_module(f"agetf_pipeline.stages.{name}").run
    done: dict[str, tuple[int, int]] = {}
    finished: set[str] = set()
    while (board := _wait_for_board(name, workspace, partition, finished, wait_s)) is not None:
        try:
            with joining(shown):
                run(config, workspace, board.partition)
            raise AssertionError("a stage that is joined ends at its table")
        except ShiftEndedError as ended:
            shift = ended.shift
        if shift.nothing_left:
            finished.add(shift.token)
        num_chunks, num_rows = done.get(board.partition, (0, 0))
        done[board.partition] = num_chunks + shift.num_chunks, num_rows + shift.num_rows
    return [
        Joined(where, *counts, _is_abandoned(name, workspace, where))
        for where, counts in done.items()
    ]


def _is_abandoned(name: str, workspace: Workspace, partition: str) -> bool:
    # In this order: a run takes its board down before it lets its lock go.
    runs = is_running(workspace, name, partition)
    board = read_board(crew_folder(workspace, JOINABLE[name], partition))
    return not runs and board is not None


def _wait_for_board(
    name: str, workspace: Workspace, partition: str | None, finished: set[str], wait_s: float
) -> Board | None:
    """Return a board on which something may be left; None where none came in time."""
    until_s = time.monotonic() + wait_s
    while True:
        # Looked at first: a run that ends meanwhile has taken its board down before.
        one_runs = partition is not None and is_running(workspace, name, partition)
        boards = (
            list_boards(workspace, name)
            if partition is None
            else [read_board(crew_folder(workspace, JOINABLE[name], partition))]
        )
        for board in boards:
            if board is not None and board.token not in finished:
                return board
        if any(board is not None for board in boards) and partition is not None:
            return None  # all of it is in work elsewhere, or done
        if not one_runs and time.monotonic() >= until_s:
            return None
        time.sleep(_POLL_S if wait_s else _POLL_S / 10)


def _with_runtime(config: PipelineConfig, **changes: object) -> PipelineConfig:
    runtime = config.runtime.model_copy(update=changes)
    return config.model_copy(update={"runtime": runtime})


def _work(
    parent: int,
    number: int,
    name: str,
    config: PipelineConfig,
    workspace: Workspace,
    partition: str,
) -> None:
    """Be one of the workers that a run has started."""
    prepare_worker(parent)
    try:
        join_stage(name, _on_own_device(config, number), workspace, partition, shown=False)
    except (Exception, KeyboardInterrupt) as error:
        message, code = describe_ending(error, workspace.root) or describe_bug(error)
        if not isinstance(error, KeyboardInterrupt):
            _LOGGER.error("worker %d of %s %s: %s", number, name, partition, message)
        sys.exit(code)


def _on_own_device(config: PipelineConfig, number: int) -> PipelineConfig:
    """Let each worker have a GPU of its own, as far as there are several."""
    if config.runtime.device not in ("auto", "cuda"):
        return config
    import torch

    num_devices = torch.cuda.device_count()
    if num_devices < 2:
        return config
    return _with_runtime(config, device=f"cuda:{number % num_devices}")
