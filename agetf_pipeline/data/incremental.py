"""Tables that grow chunk by chunk: killed anywhere, they go on with the chunk that is missing.

A finished chunk is a part file beside the table, renamed into place after everything that its
rows point to is on disk. A part or the table alone means done; any other file is an orphan, and
is made again.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from agetf_pipeline.core.files import remove_temporary_files
from agetf_pipeline.core.hashing import hash_bytes
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import TableSpec
from agetf_pipeline.data.tables import (
    conform,
    empty_frame,
    read_parquet,
    table_path,
    write_parquet,
)

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class IncrementalResult:
    """What one incremental pass did: rows taken over, rows computed, rows dropped as stale."""

    num_reused: int
    num_computed: int
    num_dropped: int


def update_table(
    workspace: Workspace,
    spec: TableSpec,
    partition: str,
    wanted: pl.DataFrame,
    compute: Callable[[pl.DataFrame], pl.DataFrame],
    chunk_size: int,
    description: str,
    is_current: Callable[[pl.DataFrame], pl.Series] | None = None,
) -> IncrementalResult:
    """Bring one partition of a table up to date with `wanted`, computing only what is missing.

    Args:
        workspace: The workspace.
        spec: The table.
        partition: Its partition.
        wanted: One row per row that the table shall have: its key columns and the version columns
            that make a stored row stale when they differ, and whatever else `compute` needs. Only
            columns that are in the table's schema too are compared.
        compute: Turns a slice of `wanted` into rows of the table, one per row. A row of a chunk
            must not depend on the other rows of the chunk.
        chunk_size: Rows per chunk; at most one chunk of work is lost when the process is killed.
        description: For the progress display.
        is_current: Says of stored rows that are wanted, one boolean each, whether they still hold;
            what versions cannot tell, such as a file that was changed since. None: all do.

    Returns:
        Counts of what was reused, computed and dropped.
    """
    path = table_path(workspace, spec, partition)
    parts = workspace.state / "parts" / spec.name / partition
    with exclusive_lock(workspace.state / "locks" / spec.name / f"{partition}.lock", description):
        for folder in (path.parent, parts):
            remove_temporary_files(folder)
        stored = _stored(path, parts, spec)
        compared = [name for name in wanted.columns if name in spec.schema.names]
        current = stored.join(wanted.select(compared), on=compared, how="semi", nulls_equal=True)
        if is_current is not None and current.height:
            current = current.filter(is_current(current))
        todo = wanted.join(
            current.select(compared), on=compared, how="anti", nulls_equal=True
        ).sort(spec.key)
        computed = []
        with Progress(description, todo.height) as progress:
            for chunk in todo.iter_slices(chunk_size):
                rows = compute(chunk)
                table = conform(rows, spec)
                write_parquet(parts / f"{_chunk_name(chunk, compared)}.parquet", table)
                computed.append(pl.from_arrow(table))
                progress.advance(chunk.height)
        if todo.height or current.height != stored.height or not path.exists():
            write_parquet(path, conform(pl.concat([current, *computed]), spec))
        for part in parts.glob("*.parquet"):
            part.unlink()
    num_dropped = stored.height - current.height
    _LOGGER.info(
        "%s: %d rows reused, %d computed, %d dropped",
        description, current.height, todo.height, num_dropped,
    )  # fmt: skip
    return IncrementalResult(current.height, todo.height, num_dropped)


def _stored(path: Path, parts: Path, spec: TableSpec) -> pl.DataFrame:
    """Rows of the table and of the parts that an interrupted pass left; parts win."""
    frames = [_read_part(part, spec) for part in sorted(parts.glob("*.parquet"))]
    if path.exists():
        frames.append(_read_part(path, spec))
    if not frames:
        return empty_frame(spec)
    return pl.concat(frames).unique(spec.key, keep="first", maintain_order=True)


def _read_part(path: Path, spec: TableSpec) -> pl.DataFrame:
    """Read a file; one of another schema (an older version of the code) counts as stale."""
    try:
        same = pq.read_schema(path).equals(spec.schema)
    except (pa.ArrowInvalid, OSError):
        same = True  # damaged: let read_parquet say so
    if not same:
        _LOGGER.warning("%s has another schema than table '%s': made again", path, spec.name)
        return empty_frame(spec)
    return read_parquet(path, spec)


def _chunk_name(chunk: pl.DataFrame, compared: list[str]) -> str:
    return hash_bytes(chunk.select(compared).write_ndjson().encode())[:32]
