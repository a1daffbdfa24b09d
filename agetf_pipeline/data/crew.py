"""Many workers at one partition of a table: who leads, who joins, and who computes which chunk.

The leader is the run of the stage. It holds the stage's lock, decides what there is to do, and
hangs it out on a board: the keys of the rows, cut into chunks. Whoever joins computes the same
stage up to there, finds by the board's digest that it would compute the same rows (same settings,
weights, code and inputs), and takes chunks that nobody has. A chunk is somebody's by a kernel lock,
and done when its part file is there. So a worker that dies loses the chunk that it was at, and a
leader that dies loses nothing: the next one takes over the parts.

Three locks, always taken in this order:
- the crew's, which every member shares while it works on a chunk, and which is the leader's alone
  while the board is put up or taken down: nobody is in the middle of a chunk then;
- the chunk's (a byte of the file `claims`).
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from agetf_pipeline.core.errors import StageError, UnavailableError
from agetf_pipeline.core.locks import Claims, exclusive_lock, shared_lock
from agetf_pipeline.core.parallel import MAX_SILENCE_S
from agetf_pipeline.core.patience import SLICE_S
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.work import Assignment
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.crew_board import (
    BOARD,
    CLAIMS,
    JOINABLE,
    TODO,
    Board,
    Chunks,
    clear,
    crew_folder,
    crew_lock,
    digest_of,
    put_up,
    read_board,
)
from agetf_pipeline.data.hands import Hands, current_hands
from agetf_pipeline.data.schemas import TableSpec

_LOGGER = logging.getLogger(__name__)
_POLL_S = 0.05
_TALLY_S = 1.0

Make = Callable[[Path, pl.DataFrame], None]
"""Computes the rows of a chunk, and writes them as a part."""


@dataclass(frozen=True)
class SharedWork:
    """Rows of a table that several processes compute, as one of them sees it.

    Attributes:
        workspace: The workspace.
        spec: The table.
        assignment: The run that this is part of, or that is joined.
        compared: Columns of the wanted rows that say which row it is, of which versions.
        make: Computes a chunk and writes its part.
        description: For the progress display.
    """

    workspace: Workspace
    spec: TableSpec
    assignment: Assignment
    compared: list[str]
    make: Make
    description: str

    @property
    def folder(self) -> Path:
        """Where the board hangs."""
        return crew_folder(self.workspace, self.spec.name, self.assignment.partition or "")

    @property
    def lock(self) -> Path:
        """The crew's lock."""
        return crew_lock(self.workspace, self.spec.name, self.assignment.partition or "")


@dataclass(frozen=True)
class Shift:
    """What a worker that joined has done.

    Attributes:
        token: Of the board that it worked at.
        num_chunks: Chunks that it computed.
        num_rows: Their rows.
        nothing_left: Whether every chunk was done or in work; else the board was taken down first.
    """

    token: str
    num_chunks: int
    num_rows: int
    nothing_left: bool


class ShiftEndedError(Exception):
    """A worker has done its part of the table; what the stage does afterwards is the leader's."""

    def __init__(self, shift: Shift) -> None:
        super().__init__("the shift has ended")
        self.shift = shift


def is_shared(assignment: Assignment | None, table: str) -> bool:
    """Whether a table that is being updated is work that others may join."""
    return assignment is not None and JOINABLE.get(assignment.stage) == table


def take_down_stale(workspace: Workspace, table: str, partition: str) -> None:
    """Take down the board that an interrupted run left; its workers finish the chunks they are at.

    To be called by whoever holds the lock of the table's partition.

    Raises:
        UnavailableError: A worker of it hangs.
    """
    folder, lock = crew_folder(workspace, table, partition), crew_lock(workspace, table, partition)
    if not lock.exists():  # nobody ever joined
        return
    (folder / BOARD).unlink(missing_ok=True)
    hands = current_hands()
    with _alone(lock, hands.max_silence_s if hands is not None else MAX_SILENCE_S):
        clear(folder)


def lead(work: SharedWork, chunks: Chunks) -> None:
    """Have every chunk computed: by this process, those that it starts, and those that join.

    Args:
        work: What is computed.
        chunks: Those that are missing.

    Raises:
        UnavailableError: A worker hangs.
    """
    assignment, folder, lock = work.assignment, work.folder, work.lock
    hands = current_hands() or Hands()
    board = Board(
        token=chunks.token,
        stage=assignment.stage,
        partition=assignment.partition or "",
        data_version=assignment.data_version,
        digest=digest_of(chunks.todo, work.compared),
        chunk_size=chunks.size,
        num_rows=chunks.todo.height,
        leader=f"process {os.getpid()} on {socket.gethostname()}",
    )
    with _alone(lock, hands.max_silence_s):
        put_up(folder, board, chunks.todo.select(work.spec.key))
    try:
        with (
            hands.hired(len(chunks)),
            Progress(work.description, chunks.todo.height) as progress,
            closing(Claims(folder / CLAIMS)) as claims,
        ):
            tally = _Tally(chunks, progress)
            _lead(chunks, claims, work.make, tally, hands)
            tally.take(force=True)
            (folder / BOARD).unlink()
            with _alone(lock, hands.max_silence_s):
                clear(folder)
    finally:
        # After an error: who joined sees it before the next chunk.
        (folder / BOARD).unlink(missing_ok=True)


def join(work: SharedWork, parts: Path, wanted: pl.DataFrame) -> None:
    """Compute chunks of another process's run that nobody else has; then raise `ShiftEndedError`.

    Args:
        work: What is computed.
        parts: Folder of the part files.
        wanted: As `update_table` is given it, sorted by key.

    Raises:
        ShiftEndedError: Always, at the end: no chunk is left, or there is no board any more.
        StageError: The run was started with other settings, weights, code or inputs.
    """
    folder, lock = work.folder, work.lock
    if not lock.exists():
        raise ShiftEndedError(Shift("", 0, 0, nothing_left=False))
    with shared_lock(lock):
        board = read_board(folder)
        if board is None:
            raise ShiftEndedError(Shift("", 0, 0, nothing_left=False))
        keys = pl.read_parquet(folder / TODO)
        claims_file = Claims(folder / CLAIMS)
    todo = keys.join(wanted, on=work.spec.key, how="left", maintain_order="left")
    todo = todo.select(wanted.columns)
    _require_same(board, work.assignment, digest_of(todo, work.compared))
    chunks = Chunks(todo, board.chunk_size, parts, board.token)
    num_chunks = num_rows = 0
    with (
        closing(claims_file) as claims,
        Progress(f"{work.description} (joined)", todo.height, work.assignment.shown) as progress,
    ):
        for number in range(len(chunks)):
            if chunks.is_done(number):
                continue
            with shared_lock(lock):
                if read_board(folder) != board:
                    raise ShiftEndedError(Shift(board.token, num_chunks, num_rows, False))
                if _compute(chunks, number, claims, work.make):
                    num_chunks += 1
                    num_rows += chunks.rows(number).height
                    progress.advance(chunks.rows(number).height)
    raise ShiftEndedError(Shift(board.token, num_chunks, num_rows, nothing_left=True))


def _lead(chunks: Chunks, claims: Claims, make: Make, tally: "_Tally", hands: Hands) -> None:
    """Take chunks in order; then wait for those of others, and take what a dead one had."""
    left = list(range(len(chunks)))
    silent_s, looked_s = 0.0, time.monotonic()
    while left:
        waiting = []
        for number in left:
            if chunks.is_done(number) or _compute(chunks, number, claims, make):
                silent_s, looked_s = 0.0, time.monotonic()
            else:
                waiting.append(number)
            tally.take()
        left = waiting
        if left:
            time.sleep(_POLL_S)
            now_s = time.monotonic()
            # Where this process was stopped meanwhile, so were perhaps the others.
            silent_s += min(now_s - looked_s, SLICE_S)
            looked_s = now_s
            if hands.are_at_work():
                silent_s = 0.0
            if silent_s > hands.max_silence_s:
                raise _hanging(hands.max_silence_s, f"{len(left)} chunks")


def _compute(chunks: Chunks, number: int, claims: Claims, make: Make) -> bool:
    """Compute a chunk and return True, unless somebody has it or had it."""
    if not claims.take(number):
        return False
    try:
        if chunks.is_done(number):
            return False
        make(chunks.part(number), chunks.rows(number))
        return True
    finally:
        claims.give_back(number)


class _Tally:
    """Shows how many rows are done, whoever computed them."""

    def __init__(self, chunks: Chunks, progress: Progress) -> None:
        self._chunks, self._progress = chunks, progress
        self._num_shown = 0
        self._counted_s = time.monotonic()

    def take(self, force: bool = False) -> None:
        if force or time.monotonic() - self._counted_s > _TALLY_S:
            num_done = self._chunks.count_done()
            self._progress.advance(max(0, num_done - self._num_shown))
            self._num_shown, self._counted_s = num_done, time.monotonic()


@contextmanager
def _alone(lock: Path, max_silence_s: float) -> Iterator[None]:
    """Hold the crew's lock alone, once everybody has finished the chunk they are at."""
    waited_s = 0.0
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(exclusive_lock(lock, "the crew", wait=False))
                break
            except StageError:
                if waited_s > max_silence_s:
                    raise _hanging(max_silence_s, "the chunks of an earlier run") from None
            if waited_s == 0.0:
                _LOGGER.info("waiting until the workers of %s have finished a chunk", lock.stem)
            time.sleep(_POLL_S)
            waited_s += _POLL_S
        yield


def _require_same(board: Board, assignment: Assignment, digest: str) -> None:
    if board.data_version == assignment.data_version and board.digest == digest:
        return
    what = (
        "other rows to compute"
        if board.data_version == assignment.data_version
        else "other settings, weights, code or inputs"
    )
    raise StageError(
        f"Expected to join {board.stage} {board.partition} with what {board.leader} started it "
        f"with; found {what} here. Give this command the same config file and overrides, the same "
        "version of the code and the same workspace; results of both would be mixed in one table."
    )


def _hanging(max_silence_s: float, what: str) -> UnavailableError:
    return UnavailableError(
        f"Expected {what} that other workers have in work to be finished; found no sign of it in "
        f"{max_silence_s:g} s. End those workers (`lslocks` on their machines names them), and run "
        "this again: what was finished is kept. For chunks that take longer, raise "
        "runtime.max_silence_s."
    )
