"""What all checks of `agetf verify` share: what is looked at, what was found, what was read.

Nothing here writes. A table that cannot be read is said once, and counts as absent afterwards.
"""

import fcntl
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import polars as pl
import pyarrow as pa

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.work import FORGETTING_LOCK
from agetf_pipeline.core.workspace import (
    CAF_PREFIX,
    FFHQ_PARTITION,
    Workspace,
    is_caf,
    is_shard_name,
    shard_of,
)
from agetf_pipeline.data.corpora import discover_partitions
from agetf_pipeline.data.listing import escape_name, is_utf8
from agetf_pipeline.data.schemas import TABLES, TRAINING_MANIFEST, TableSpec
from agetf_pipeline.data.streaming import SortedTable
from agetf_pipeline.data.tables import list_partitions, table_path
from agetf_pipeline.upkeep.findings import Finding
from agetf_pipeline.upkeep.verify_checks import AREAS, check_of

_NUM_HASHING_THREADS = 4
_HASHED_AT_ONCE = 256
READ_ERRORS = (DataError, pa.ArrowException, OSError, ValueError, MemoryError)
"""What reading a damaged table may raise."""
_OF_ALL = ("synthesize", "relabel")
"""Stages that write the tables of every partition at once."""


@dataclass
class Survey:
    """One verification.

    Attributes:
        config: Says where the corpora lie and which experts there are.
        workspace: What is verified.
        partitions: Those that are looked at; None: all there are.
        areas: Of `AREAS`.
        quick: Whether pictures are not hashed, only looked for.
        dagster_home: Whose SQLite files are looked at, too.
        findings: What was found.
        tallies: Area to what was looked at, by name.
    """

    config: PipelineConfig
    workspace: Workspace
    partitions: tuple[str, ...] | None = None
    areas: tuple[str, ...] = AREAS
    quick: bool = False
    dagster_home: Path | None = None
    findings: list[Finding] = field(default_factory=list)
    tallies: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _unreadable: set[Path] = field(default_factory=set)
    _said_at_work: set[str] = field(default_factory=set)

    def add(
        self, check: str, where: str | Path, expected: str, found: str,
        image_id: str | None = None, stage: str = "that made it",
    ) -> None:  # fmt: skip
        """Note a finding; `stage` is named in the remedy."""
        its = check_of(check)
        place = self.name_of(where) if isinstance(where, Path) else where
        found = found if is_utf8(found) else escape_name(found)
        remedy = its.remedy.replace("{stage}", stage)
        self.findings.append(Finding(its.severity, check, place, expected, found, remedy, image_id))

    def name_of(self, path: Path) -> str:
        """Return a path as a finding names it: below the root where it lies there; printable."""
        root = self.workspace.root
        name = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
        return name if is_utf8(name) and name.isprintable() else escape_name(name)

    def count(self, area: str, **numbers: int) -> None:
        """Add to what was looked at."""
        self.tallies[area].update(numbers)

    def wants(self, partition: str) -> bool:
        """Whether a partition is looked at."""
        return self.partitions is None or partition in self.partitions

    def known_partitions(self) -> list[str]:
        """Return the partitions that any table has, or any folder of photographs, in order."""
        names = {
            name
            for spec in TABLES.values()
            if spec is not TRAINING_MANIFEST
            for name in list_partitions(self.workspace, spec)
            if is_partition(name)
        }
        with suppress(DataError, OSError):  # said by the links
            names.update(discover_partitions(self.config, self.workspace))
        return sorted(filter(self.wants, names), key=lambda name: (is_caf(name), name))

    def path_of(self, spec: TableSpec, partition: str) -> Path:
        """Return the file of a table."""
        return table_path(self.workspace, spec, partition)

    def has(self, spec: TableSpec, partition: str) -> bool:
        """Whether a table has a partition."""
        return os.path.lexists(self.path_of(spec, partition))

    def slices(
        self,
        spec: TableSpec,
        partition: str,
        columns: list[str],
        workspace: Workspace | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Yield rows of a table, a row group at a time; none where it is absent or damaged."""
        path = table_path(workspace or self.workspace, spec, partition)
        if path in self._unreadable or not os.path.lexists(path):
            return
        try:
            yield from SortedTable(path, spec).slices(columns)
        except READ_ERRORS as error:
            self.add_unreadable(path, error)

    def rows(
        self,
        spec: TableSpec,
        partition: str,
        columns: list[str],
        workspace: Workspace | None = None,
    ) -> pl.DataFrame | None:
        """Return columns of a table; None where it is absent or damaged."""
        frames = list(self.slices(spec, partition, columns, workspace))
        path = table_path(workspace or self.workspace, spec, partition)
        if path in self._unreadable or not path.exists():
            return None
        empty = pl.from_arrow(spec.schema.empty_table().select(columns))
        assert isinstance(empty, pl.DataFrame)
        return pl.concat([empty, *frames])

    def add_unreadable(self, path: Path, error: BaseException) -> None:
        """Say of a table, once, that it cannot be read."""
        if path in self._unreadable:
            return
        self._unreadable.add(path)
        text = str(error).partition(". Delete it")[0].partition(". It was made")[0]
        if "to have the columns of table" in text:
            self.add("tables/schema", path, "the columns of its table", text.partition("found ")[2])
        else:
            said = text.partition("; found: ")[2] or text or type(error).__name__
            self.add("tables/unreadable", path, "a readable Parquet file", said)

    def is_unreadable(self, path: Path) -> bool:
        """Whether a table was found to be damaged."""
        return path in self._unreadable

    def hashes(self, area: str, paths: Iterable[Path]) -> Iterator[tuple[Path, str | OSError]]:
        """Yield each file with its sha256, or why there is none; several are read at once."""

        def digest(path: Path) -> tuple[str | OSError, int]:
            try:
                return hash_file(path), path.stat().st_size
            except OSError as error:
                return error, 0

        with ThreadPoolExecutor(_NUM_HASHING_THREADS, thread_name_prefix="hash") as threads:
            rest = iter(paths)
            while some := list(islice(rest, _HASHED_AT_ONCE)):
                for path, (value, size) in zip(some, threads.map(digest, some), strict=True):
                    self.count(area, files_hashed=1, bytes_hashed=size)
                    yield path, value

    def is_at_work(self, partition: str | None, *stages: str) -> bool:
        """Whether a stage holds the lock of a partition (None: of all); says so, once a lock.

        `stages`: those that matter, for None.
        """
        held = self._held(partition, stages)
        for what in sorted(held - self._said_at_work):
            self._said_at_work.add(what)
            where = _locks(self.workspace) / what
            name = what.removeprefix("stages/").removesuffix(".lock")
            self.add("state/at_work", where, "no stage at work", f"{name} is running")
        return bool(held)

    def _held(self, partition: str | None, stages: tuple[str, ...]) -> set[str]:
        from agetf_pipeline.stages.names import STAGE_SUMMARIES

        names = stages if partition is None else _OF_ALL
        if partition is not None:
            names = (*names, *(f"{stage} {partition}" for stage in STAGE_SUMMARIES))
        # Stages share the one of forgetting, which alone holds it for itself.
        locks = [*(f"stages/{name}.lock" for name in names), FORGETTING_LOCK]
        return {lock for lock in locks if _is_held(_locks(self.workspace) / lock)}

    @contextmanager
    def undisturbed(self, partition: str) -> Iterator[None]:
        """Drop what the block finds, and say why, where a stage wrote tables meanwhile."""
        before, start = self._stamps(partition), len(self.findings)
        yield
        if self._stamps(partition) != before or self._held(partition, ()):
            del self.findings[start:]
            if not self.is_at_work(partition):
                where = self.name_of(self.path_of(TABLES["images"], partition))
                self.add("state/at_work", where, "tables at rest", "tables that changed meanwhile")

    def _stamps(self, partition: str) -> list[tuple[int, int] | None]:
        stamps: list[tuple[int, int] | None] = []
        for spec in TABLES.values():
            try:
                status = self.path_of(spec, partition).stat()
                stamps.append((status.st_ino, status.st_mtime_ns))
            except OSError:
                stamps.append(None)
        return stamps


def is_partition(name: str) -> bool:
    """Whether a name is a partition's: `ffhq_aging` or `caf/<shard>`."""
    return name == FFHQ_PARTITION or (name.startswith(CAF_PREFIX) and is_shard_name(shard_of(name)))


def _locks(workspace: Workspace) -> Path:
    return workspace.state / "locks"


def _is_held(lock: Path) -> bool:
    """Whether somebody holds a lock alone; asked for an instant, without writing anything."""
    try:
        with lock.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such lock: nobody ever held it
        return False
    return False
