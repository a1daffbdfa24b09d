"""SQLite files, looked at without changing anything.

They are never opened in a way that writes: where a writer left a journal beside one, a copy is
looked at.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from agetf_pipeline.upkeep.verify_survey import Survey

_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_MAGIC = b"SQLite format 3\x00"
_JOURNALS = ("-wal", "-journal")
_MAX_SAID = 3


def tracking_database(survey: "Survey") -> Path | None:
    """Return the SQLite file of the registry; None where it is a server."""
    uri = survey.config.register_model.tracking_uri
    if uri is None:
        return survey.workspace.root / "mlflow.db"
    parts = urlsplit(uri)
    return Path(unquote(parts.path).removeprefix("/")) if parts.scheme == "sqlite" else None


def databases_of(survey: "Survey") -> Iterator[Path]:
    """Yield the SQLite files of the workspace, of the registry and of the Dagster instance."""
    root = survey.workspace.root
    found = {path for path in root.glob("[!.]*") if path.suffix in _SUFFIXES}
    folders = [root / top for top in ("data", "models", "outputs", "stats", "mlruns")]
    if survey.dagster_home is not None:
        folders.append(survey.dagster_home)
        if not survey.dagster_home.is_dir():
            survey.add("files/unreadable", survey.dagster_home, "a Dagster home", "no folder")
    for folder in folders:
        for current, _, names in os.walk(folder):
            found.update(Path(current) / name for name in names if name.endswith(_SUFFIXES))
    registry = tracking_database(survey)
    if registry is not None:
        found.add(registry.resolve() if registry.exists() else registry)
    yield from sorted({path for path in found if path.is_file()})


def integrity_of(path: Path, quick: bool = False) -> str | None:
    """Return what is wrong with a SQLite file, None where nothing is; nothing is written.

    Args:
        path: The file.
        quick: Whether indexes are not compared with their tables.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                return "it does not begin as a SQLite file"
        if not _has_journal(path):
            problem = _check(path, quick)
            if problem is None or not _has_journal(path):
                return problem
        with copied(path) as copy:
            return _check(copy, quick, immutable=False)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """Copy a SQLite file with its journal, which belongs to it while a writer is at work.

    Yields:
        The copy, which may be opened as one likes; it is removed afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="agetf-verify-") as folder:
        copy = Path(folder) / path.name
        for suffix in ("", *_JOURNALS):
            if _size(path, suffix) or not suffix:
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        yield copy


def _has_journal(path: Path) -> bool:
    return any(_size(path, suffix) for suffix in _JOURNALS)


def _size(path: Path, suffix: str) -> int:
    try:
        return Path(f"{path}{suffix}").stat().st_size
    except OSError:
        return 0


def _check(path: Path, quick: bool, immutable: bool = True) -> str | None:
    # Immutable: neither locks nor shared memory are made beside the file.
    how = "immutable=1" if immutable else "mode=rw"
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)
        try:
            pragma = "quick_check" if quick else "integrity_check"
            said = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}")]
        finally:
            connection.close()
    except sqlite3.Error as error:
        return str(error)
    return None if said == ["ok"] else "; ".join(said[:_MAX_SAID])
