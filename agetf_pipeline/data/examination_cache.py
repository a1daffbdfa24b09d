"""What the examination of every distinct content found: kept, so that no file is decoded twice.

A cache among the workspace's state, not a table of the data contract: it may be deleted. It lies as
tables do that grow chunk by chunk (`agetf_pipeline.data.incremental`), and is brought up to date
without holding its keys.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from agetf_pipeline.core.files import remove_temporary_files
from agetf_pipeline.core.hashing import hash_bytes
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.corpus_store import CorpusStore
from agetf_pipeline.data.schemas import TableSpec
from agetf_pipeline.data.streaming import SortedTable, open_table
from agetf_pipeline.data.tables import (
    DAMAGED,
    conform,
    empty_frame,
    read_parquet,
    table_path,
    to_frame,
    write_parquet,
)

_LOGGER = logging.getLogger(__name__)
GROUP_ROWS = 1024
"""Rows of a row group: a table's bytes are its rows' alone."""

EXAMINATIONS = TableSpec(
    "examinations",
    pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("reason", pa.string()),  # null: accepted
            pa.field("detail", pa.string()),
            pa.field("format", pa.string()),
            pa.field("mode", pa.string()),
            pa.field("stored_width_px", pa.int32()),
            pa.field("stored_height_px", pa.int32()),
            pa.field("width_px", pa.int32()),
            pa.field("height_px", pa.int32()),
            pa.field("is_grey", pa.bool_()),
            pa.field("flags", pa.list_(pa.string())),
            pa.field("face_sha256", pa.string()),  # of the crop, where one was made
        ]
    ),
    ("image_id",),
    "What each distinct content is, or why it is not taken.",
)


def update_cache(
    workspace: Workspace,
    partition: str,
    version: str,
    store: CorpusStore,
    examine: Callable[[Iterable[tuple[bytes, bytes]]], Iterator[dict[str, Any]]],
    chunk_size: int,
) -> None:
    """Make the cache of a partition hold what was found of a store's wanted contents, no more.

    Args:
        workspace: Of the cache.
        partition: Whose contents they are.
        version: Makes stored rows stale that have another.
        store: Its table `wanted`; where each finding lies is noted there.
        examine: Turns (image id, name), by image id, into the rows that are to be stored.
        chunk_size: Rows that are lost at most when the process is killed.
    """
    path = table_path(workspace, EXAMINATIONS, partition)
    parts = workspace.state / "parts" / EXAMINATIONS.name / partition
    lock = workspace.state / "locks" / EXAMINATIONS.name / f"{partition}.lock"
    description = f"reading {partition}"
    with exclusive_lock(lock, description):
        for folder in (path.parent, parts):
            remove_temporary_files(folder)
        leftover = sorted(parts.glob("*.parquet"))
        sources = [source for place in [*leftover, path] if (source := _open(place)) is not None]
        num_current, num_stored = 0, 0
        for place, source in enumerate(sources):
            for rows in source.slices(["image_id", "version"]):
                num_stored += rows.height
                num_current += _find_current(store, rows, version, place)
        num_wanted = store.value("SELECT COUNT(*) FROM wanted")
        todo = store.slices(
            "SELECT image_id, name FROM wanted WHERE source IS NULL ORDER BY image_id"
        )
        fresh: list[Path] = []
        with Progress(description, num_wanted - num_current) as progress:
            found = examine(content for some in todo for content in some)
            while rows := list(islice(found, chunk_size)):
                part = parts / f"{_chunk_name(rows)}.parquet"
                if part in leftover:  # what it holds no longer counts, but is still to be merged
                    part = part.with_stem(f"{part.stem}-again")
                write_parquet(part, conform(to_frame(rows, EXAMINATIONS), EXAMINATIONS))
                fresh.append(part)
                progress.advance(len(rows))
        if fresh or leftover or num_current != num_stored or not path.exists():
            _merge(path, store, version, sources, fresh)
        for part in parts.glob("*.parquet"):
            part.unlink()
    _LOGGER.info(
        "%s: %d rows reused, %d computed, %d dropped",
        description, num_current, num_wanted - num_current, num_stored - num_current,
    )  # fmt: skip


def _open(path: Path) -> SortedTable | None:
    """Open a file; None where there is none, or one of another schema (an older version's)."""
    if not path.exists():
        return None
    try:
        same = pq.read_schema(path).equals(EXAMINATIONS.schema)
    except DAMAGED:
        same = True  # opening it says so
    if same:
        return SortedTable(path, EXAMINATIONS)
    _LOGGER.warning("%s has another schema than table 'examinations': made again", path)
    return None


def _find_current(store: CorpusStore, rows: pl.DataFrame, version: str, place: int) -> int:
    """Note which wanted contents a source holds, if none before it does; return their number."""
    ids = rows.filter(pl.col("version") == version)["image_id"]
    cursor = store.run("SELECT TOTAL_CHANGES()")
    before = cursor.fetchone()[0]
    store.run_many(
        "UPDATE wanted SET source = ? WHERE image_id = ? AND source IS NULL",
        ((place, bytes.fromhex(image_id)) for image_id in ids),
    )
    return store.value("SELECT TOTAL_CHANGES()") - before


def _chunk_name(rows: list[dict[str, Any]]) -> str:
    lines = (f"{row['image_id']} {row['version']}" for row in rows)
    return hash_bytes("\n".join(lines).encode())[:32]


def _merge(
    path: Path, store: CorpusStore, version: str, stored: list[SortedTable], fresh: list[Path]
) -> None:
    """Write the cache from what was stored and what was found, some contents at a time."""
    parts = _Parts(fresh)
    with open_table(path, EXAMINATIONS) as writer:
        for some in store.slices(
            "SELECT image_id, source FROM wanted ORDER BY image_id", size=GROUP_ROWS
        ):
            keys = pl.DataFrame(
                {"image_id": [raw.hex() for raw, _ in some], "source": [s for _, s in some]},
                schema={"image_id": pl.String, "source": pl.Int64},
            )
            low, high = keys["image_id"][0], keys["image_id"][-1]
            found = [
                (source, keys.filter(pl.col("source") == place))
                for place, source in enumerate(stored)
            ]
            frames = [parts.up_to(high)]
            for source, its in found:
                rows = source.between(low, high) if its.height else None
                if rows is not None:
                    current = rows.filter(pl.col("version") == version)
                    frames.append(current.join(its, on="image_id", how="semi"))
            writer.write(pl.concat(frames))
            # What thousands of small files leave behind would otherwise grow with their number.
            pa.default_memory_pool().release_unused()


class _Parts:
    """Rows of the parts of one run, which are in order from part to part: each is read once."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = deque(paths)
        self._rows = empty_frame(EXAMINATIONS)

    def up_to(self, high: str) -> pl.DataFrame:
        """Return the next rows, to this image id."""
        while self._paths and (not self._rows.height or self._rows["image_id"][-1] <= high):
            rows = read_parquet(self._paths.popleft(), EXAMINATIONS)
            self._rows = pl.concat([self._rows, rows])
        is_before = self._rows["image_id"] <= high
        rows, self._rows = self._rows.filter(is_before), self._rows.filter(~is_before)
        return rows
