"""What is known of a partition's files while ingest works on it: on disk, not in memory.

A SQLite file without a name: a process that ends, however it ends, leaves nothing of it. Its memory
is the cache that it is given, whatever the number of files. All of it is one transaction, since
nothing of it outlives the process.
"""

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agetf_pipeline.core.storage_errors import storage_error, writing_to
from agetf_pipeline.data.listing import escape_name

_CACHE_KIB = 4096
SLICE = 2048
"""Rows that are in memory at a time."""

_TABLES = """
CREATE TABLE files (  -- every file of the folder
    name BLOB PRIMARY KEY,  -- bytes of the path inside it
    num_bytes INTEGER,
    readable INTEGER,  -- whether its bytes are looked at
    image_id BLOB,  -- null until they are
    reason TEXT,  -- why it is not taken; null: nothing speaks against it
    detail TEXT,
    duplicate_of TEXT,
    row INTEGER,  -- of the list, that is about it
    conflict TEXT,  -- how another row contradicts that
    other_name INTEGER,  -- whether the list spells it otherwise
    taken INTEGER
) WITHOUT ROWID;
CREATE TABLE contents (image_id BLOB, name BLOB, PRIMARY KEY (image_id, name)) WITHOUT ROWID;
CREATE TABLE listed (  -- rows of a manifest
    number INTEGER PRIMARY KEY, path TEXT, subject TEXT, age REAL, age_group TEXT, bad_age TEXT,
    waits INTEGER
);
CREATE TABLE spellings (
    spelling BLOB, name BLOB, PRIMARY KEY (spelling, name)
) WITHOUT ROWID;
CREATE TABLE absent (  -- what a manifest lists without a file, and in how many rows
    path TEXT PRIMARY KEY, reason TEXT, detail TEXT, num_rows INTEGER
) WITHOUT ROWID;
CREATE TABLE labels (number INTEGER PRIMARY KEY, line INTEGER, label TEXT);
CREATE TABLE elsewhere (
    image_id BLOB PRIMARY KEY, path TEXT, subject TEXT, age REAL
) WITHOUT ROWID;
CREATE TABLE wanted (  -- contents to be examined: a file that has each, where its finding lies
    image_id BLOB PRIMARY KEY, name BLOB, source INTEGER
) WITHOUT ROWID;
CREATE TABLE findings (image_id BLOB PRIMARY KEY, finding TEXT) WITHOUT ROWID;
CREATE TABLE kept (image_id BLOB PRIMARY KEY, path TEXT, subject TEXT, age REAL) WITHOUT ROWID;
CREATE TABLE numbers (number INTEGER PRIMARY KEY, num_images INTEGER);
CREATE TABLE quarantine (
    path TEXT PRIMARY KEY, image_id BLOB, reason TEXT, detail TEXT, num_bytes INTEGER,
    duplicate_of TEXT
) WITHOUT ROWID;
CREATE TABLE names (name TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class CorpusStore:
    """The tables of one partition's reading; see `open_store`.

    Attributes:
        root: The partition's folder, links resolved.
        messages: Sentences for a person, as they come up.
    """

    def __init__(self, database: sqlite3.Connection, root: str) -> None:
        self._database = database
        self.root = root
        self.messages: list[str] = []

    def run(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self._database.execute(statement, values)

    def run_many(self, statement: str, values: Iterable[Sequence[Any]]) -> None:
        """Run one statement with many values."""
        self._database.executemany(statement, values)

    def value(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Return the first value of the first row; None without one."""
        row = self._database.execute(statement, values).fetchone()
        return None if row is None else row[0]

    def slices(
        self, statement: str, values: Sequence[Any] = (), size: int = SLICE
    ) -> Iterator[list[tuple]]:
        """Yield rows, `size` at a time. What is read must not be written meanwhile."""
        cursor = self._database.execute(statement, values)
        while rows := cursor.fetchmany(size):
            yield rows

    def by_name(self, columns: str, where: str, size: int = SLICE) -> Iterator[list[tuple]]:
        """Yield rows of `files`, by name; the name first. Rows that were read may be changed."""
        last = b""
        while rows := self._database.execute(
            f"SELECT name, {columns} FROM files WHERE name > ? AND {where} ORDER BY name LIMIT ?",
            (last, size),
        ).fetchall():
            last = rows[-1][0]
            yield rows

    def refuse(self, refused: Iterable[tuple[str, str, bytes]]) -> None:
        """Note (reason, detail, name) of files that are not taken; later ones count."""
        self.run_many("UPDATE files SET reason = ?, detail = ? WHERE name = ?", refused)

    def path_of(self, name: bytes) -> str:
        """Return where a file lies; a text, since there are millions of them."""
        return f"{self.root}/{os.fsdecode(name)}"


@contextmanager
def open_store(folder: Path, root: Path) -> Iterator[CorpusStore]:
    """Give an empty store, which is gone when the block ends.

    Args:
        folder: Where its file is to lie; made if absent.
        root: Folder of the partition's files; it need not exist.

    Raises:
        StorageError: The disk is full, or nothing may be written there.
    """
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".tmp-", suffix=".sqlite", dir=folder)
        os.close(descriptor)
        try:
            database = sqlite3.connect(name, isolation_level=None)
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            # The file is opened by the first statement that needs it, and nameless from then on.
            database.execute("BEGIN EXCLUSIVE")
        finally:
            Path(name).unlink(missing_ok=True)
    try:
        for statement in _TABLES.split(";\n"):
            database.execute(statement)
        database.create_function(
            "escaped", 1, lambda raw: escape_name(os.fsdecode(raw)), deterministic=True
        )
        yield CorpusStore(database, os.path.realpath(root))
    except sqlite3.Error as error:
        raise storage_error(error, folder) or error from error
    finally:
        database.close()
