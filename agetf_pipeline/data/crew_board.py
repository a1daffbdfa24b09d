"""The board of a partition that several workers compute: which rows, in which chunks.

See `data/crew.py`, which hangs it out and takes it down.
"""

import hashlib
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path, read_json, write_json
from agetf_pipeline.core.workspace import Workspace

JOINABLE = {
    "predict": "predictions",
    "enhance": "enhanced",
    "recheck": "enhanced_ages",
    "caption": "captions",
}
"""Stages that can be joined, and the table that each of them makes chunk by chunk."""
BOARD, TODO, CLAIMS = "board.json", "todo.parquet", "claims"
_HASHED_ROWS = 8192


@dataclass(frozen=True)
class Board:
    """What there is to do, as the leader hangs it out.

    Attributes:
        token: Of this board alone.
        stage: The stage's verb.
        partition: The partition.
        data_version: Fingerprint of the leader's settings, code and inputs.
        digest: Hash of every row that is to be computed, with the versions that it is of.
        chunk_size: Rows of a chunk.
        num_rows: Rows in all.
        leader: Host and process, for people.
    """

    token: str
    stage: str
    partition: str
    data_version: str
    digest: str
    chunk_size: int
    num_rows: int
    leader: str


@dataclass(frozen=True)
class Chunks:
    """What is to be computed, in slices, each with the part file that says that it is done."""

    todo: pl.DataFrame
    size: int
    parts: Path
    token: str

    def __len__(self) -> int:
        return -(-self.todo.height // self.size)

    def rows(self, number: int) -> pl.DataFrame:
        """Return what is to be computed of a chunk."""
        return self.todo.slice(number * self.size, self.size)

    def part(self, number: int) -> Path:
        """Return the part file of a chunk; no other run has one of that name."""
        return self.parts / f"{self.token}-{number:06d}.parquet"

    def is_done(self, number: int) -> bool:
        """Whether its part is there."""
        return self.part(number).exists()

    def count_done(self) -> int:
        """Return how many rows are in parts, whoever made them."""
        done = {entry.name for entry in os.scandir(self.parts)} if self.parts.is_dir() else set()
        numbers = [n for n in range(len(self)) if self.part(n).name in done]
        return sum(min(self.size, self.todo.height - n * self.size) for n in numbers)


def new_token() -> str:
    """Return a name that no other run gives its parts."""
    return secrets.token_hex(6)


def crew_folder(workspace: Workspace, table: str, partition: str) -> Path:
    """Return where the board of a partition hangs."""
    return workspace.state / "crew" / table / partition


def crew_lock(workspace: Workspace, table: str, partition: str) -> Path:
    """Return the lock that the members of a crew share while they work on a chunk."""
    return workspace.state / "locks" / "crew" / table / f"{partition}.lock"


def read_board(folder: Path) -> Board | None:
    """Return the board of a partition; None where there is none.

    Raises:
        DataError: It is damaged.
    """
    try:
        return Board(**read_json(folder / BOARD))
    except FileNotFoundError:
        return None
    except TypeError as error:
        raise DataError(
            f"Expected {folder / BOARD} to be of this version; found {error}. Start the stage "
            "again, on the machine that leads and on those that join in the same version."
        ) from error


def list_boards(workspace: Workspace, stage: str) -> list[Board]:
    """Return the boards of a stage, sorted by partition."""
    top = workspace.state / "crew" / JOINABLE[stage]
    boards = [read_board(path.parent) for path in sorted(top.rglob(BOARD))]
    return [board for board in boards if board is not None and board.stage == stage]


def digest_of(todo: pl.DataFrame, compared: Sequence[str]) -> str:
    """Return the hash of rows that are to be computed."""
    digest = hashlib.sha256()
    for rows in todo.select(compared).iter_slices(_HASHED_ROWS):
        digest.update(rows.write_ndjson().encode())
    return digest.hexdigest()


def put_up(folder: Path, board: Board, keys: pl.DataFrame) -> None:
    """Write the board, last of its files; under the crew's lock alone."""
    clear(folder)
    with atomic_path(folder / TODO) as temporary:
        keys.write_parquet(temporary)
    (folder / CLAIMS).touch()
    write_json(folder / BOARD, asdict(board))


def clear(folder: Path) -> None:
    """Remove what belongs to a board; under the crew's lock alone."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
