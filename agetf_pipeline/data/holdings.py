"""Which partition holds an image: an index over the tables `images`, for ingest.

`image_id` is the key over all partitions, and the first partition in order keeps an image. Asking
every table of a thousand shards for every shard costs the square of their number; the index is
asked instead, and takes in only tables that it has not seen. It holds the first eight bytes of ids
and numbers of tables, nothing else: what a hit says is read from its table.

A cache among the workspace's state: it may be deleted, and is made anew where it is damaged.
"""

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import polars as pl

from agetf_pipeline.core.errors import StorageError
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.corpus_store import CorpusStore
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.streaming import SortedTable
from agetf_pipeline.data.tables import table_path

_LOGGER = logging.getLogger(__name__)
_SLICE = 4096
_COLUMNS = ["image_id", "path", "subject", "true_age_years"]
_PARAMETERS = 512
_CACHE_KIB = 8192
_LEAST_WASTE = 100_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tables (
    number INTEGER PRIMARY KEY AUTOINCREMENT, partition TEXT UNIQUE, stamp TEXT, num_rows INTEGER
);
CREATE TABLE IF NOT EXISTS held (
    prefix INTEGER, number INTEGER, PRIMARY KEY (prefix, number)
) WITHOUT ROWID;
"""


def index_path(workspace: Workspace) -> Path:
    """Return the file of the index (it need not exist)."""
    return workspace.state / "ingest" / "held.sqlite"


def find_elsewhere(workspace: Workspace, earlier: Sequence[str], store: CorpusStore) -> None:
    """Note in a store what earlier partitions hold of its contents: path, subject and age.

    Args:
        workspace: The workspace.
        earlier: The partitions before this one, in order.
        store: Of the partition; its contents are hashed.

    Raises:
        DataError: A table of `images` is damaged.
    """
    paths = {name: table_path(workspace, IMAGES, name) for name in earlier}
    tables = {name: path for name, path in paths.items() if path.exists()}
    if not tables or store.value("SELECT 1 FROM contents LIMIT 1") is None:
        return
    with _open_index(workspace, tables) as index:
        for rows in store.slices(
            "SELECT DISTINCT image_id FROM contents ORDER BY image_id", size=_SLICE
        ):
            for partition, wanted in index.ask([image_id for (image_id,) in rows]).items():
                _note(store, tables[partition], wanted)


def _note(store: CorpusStore, path: Path, wanted: list[bytes]) -> None:
    """Take over what a table says of contents that it may hold, which are sorted."""
    names = pl.Series("image_id", [image_id.hex() for image_id in wanted])
    rows = SortedTable(path, IMAGES).between(names[0], names[-1], _COLUMNS)
    if rows is None:
        return
    found = rows.join(names.to_frame(), on="image_id", how="semi")
    # Several tables hold one image only until they are read again: any of them will do, but
    # always the same.
    store.run_many(
        "INSERT INTO elsewhere VALUES (?, ?, ?, ?) ON CONFLICT (image_id) DO UPDATE SET "
        "path = excluded.path, subject = excluded.subject, age = excluded.age "
        "WHERE excluded.path > elsewhere.path",
        ((bytes.fromhex(image_id), *said) for image_id, *said in found.iter_rows()),
    )


class _Index:
    """The opened index, up to date with some tables; without a database every table may hold it."""

    def __init__(self, database: sqlite3.Connection | None, partitions: dict[int, str]) -> None:
        self._database = database
        self._partitions = partitions

    def ask(self, image_ids: Sequence[bytes]) -> dict[str, list[bytes]]:
        """Return the partitions that may hold contents, which are sorted, each with those."""
        if self._database is None:
            return {name: list(image_ids) for name in self._partitions.values()}
        found: dict[str, list[bytes]] = {}
        ids = iter(image_ids)
        while some := list(islice(ids, _PARAMETERS)):
            by_prefix: dict[int, list[bytes]] = {}
            for image_id in some:
                by_prefix.setdefault(_prefix(image_id), []).append(image_id)
            marks = ",".join("?" * len(by_prefix))
            for prefix, number in self._database.execute(
                f"SELECT prefix, number FROM held WHERE prefix IN ({marks})", list(by_prefix)
            ):
                if (partition := self._partitions.get(number)) is not None:
                    found.setdefault(partition, []).extend(by_prefix[prefix])
        return {partition: sorted(its) for partition, its in sorted(found.items())}


@contextmanager
def _open_index(workspace: Workspace, tables: dict[str, Path]) -> Iterator[_Index]:
    """Give the index, up to date with these tables, to one process at a time."""
    path = index_path(workspace)
    with exclusive_lock(workspace.state / "locks" / "held.lock", "asking who holds an image"):
        database, partitions = None, dict(enumerate(tables))
        for is_last in (False, True):
            try:
                database = _connect(path)
                partitions = _bring_up_to_date(database, tables)
                break
            except (sqlite3.Error, OSError, StorageError, ValueError) as error:
                if database is not None:
                    database.close()
                    database = None
                _LOGGER.warning(
                    "the index %s cannot be used (%s): %s", path, error,
                    "every table is asked" if is_last else "it is made anew",
                )  # fmt: skip
                for leftover in (path, path.with_name(f"{path.name}-journal")):
                    with suppress(OSError):
                        leftover.unlink(missing_ok=True)
        try:
            yield _Index(database, partitions)
        finally:
            if database is not None:
                database.close()


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    try:
        # Killed in between, the next one finds what was there before; so after a power cut.
        database.execute("PRAGMA journal_mode = TRUNCATE")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        for statement in _SCHEMA.split(";\n"):
            database.execute(statement)
    except BaseException:
        database.close()
        raise
    return database


def _bring_up_to_date(database: sqlite3.Connection, tables: dict[str, Path]) -> dict[int, str]:
    """Take in what the index lacks of tables; return their numbers."""
    known = {
        partition: (number, stamp)
        for number, partition, stamp in database.execute(
            "SELECT number, partition, stamp FROM tables WHERE partition IS NOT NULL"
        )
    }
    partitions: dict[int, str] = {}
    for partition, path in tables.items():
        status = path.stat()
        stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
        number, before = known.get(partition, (None, None))
        if number is None or before != stamp:
            number = _take_in(database, partition, path, stamp)
        partitions[number] = partition
    return partitions


def _take_in(database: sqlite3.Connection, partition: str, path: Path, stamp: str) -> int:
    """Store which images a table holds, in one transaction; return its number."""
    database.execute("BEGIN")
    # What it held before keeps its number, which nobody asks for any more.
    database.execute("UPDATE tables SET partition = NULL WHERE partition = ?", (partition,))
    number = database.execute(
        "INSERT INTO tables (partition, stamp) VALUES (?, ?)", (partition, stamp)
    ).lastrowid
    assert number is not None
    num_rows = 0
    for rows in SortedTable(path, IMAGES).slices(["image_id"]):
        ids = (bytes.fromhex(image_id) for image_id in rows["image_id"])
        prefixes = sorted((_prefix(image_id), number) for image_id in ids)
        database.executemany("INSERT OR IGNORE INTO held VALUES (?, ?)", prefixes)
        num_rows += rows.height
    database.execute("UPDATE tables SET num_rows = ? WHERE number = ?", (num_rows, number))
    _drop_waste(database)
    database.execute("COMMIT")
    return number


def _drop_waste(database: sqlite3.Connection) -> None:
    """Delete what nobody asks for any more, once it is more than the rest."""
    live, dead = database.execute(
        "SELECT TOTAL(num_rows) FILTER (WHERE partition IS NOT NULL), "
        "TOTAL(num_rows) FILTER (WHERE partition IS NULL) FROM tables"
    ).fetchone()
    if dead > max(live, _LEAST_WASTE):
        dead_ones = "SELECT number FROM tables WHERE partition IS NULL"
        database.execute(f"DELETE FROM held WHERE number IN ({dead_ones})")
        database.execute("DELETE FROM tables WHERE partition IS NULL")


def _prefix(image_id: bytes) -> int:
    return int.from_bytes(image_id[:8], "big", signed=True)
