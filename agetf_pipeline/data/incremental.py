"""Tables that grow chunk by chunk: killed anywhere, they go on with the chunk that is missing.

A finished chunk is a part file beside the table, renamed into place after everything that its
rows point to is on disk. A part or the table alone means done; any other file is an orphan, and
is made again. Several processes can compute the chunks of one table (`crew`): its bytes are the
same, whoever did what.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from agetf_pipeline.core.files import remove_temporary_files
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.work import current_assignment
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data import crew
from agetf_pipeline.data.crew_board import Chunks, new_token
from agetf_pipeline.data.schemas import TableSpec
from agetf_pipeline.data.streaming import SortedTable, open_table
from agetf_pipeline.data.tables import conform, table_path, write_parquet

_LOGGER = logging.getLogger(__name__)
_GROUP_ROWS = 4096
"""Rows of a row group, whatever the chunks were: a table's bytes are its rows' alone."""


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
    drop_stale_first: bool = False,
    keeps_besides: Callable[[pl.DataFrame], pl.Series] | None = None,
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
        drop_stale_first: Whether stale rows leave the table before anything is computed: for rows
            that point to files which computing overwrites, so that no row ever points to another
            version's file.
        keeps_besides: Says of stored rows, one boolean each, whether they stay although they are
            not wanted; for what other versions made and may be asked for again. None: all go.

    Returns:
        Counts of what was reused, computed and dropped, whoever computed it.

    Raises:
        UnavailableError: Another process that computes some of it hangs.
        ShiftEndedError: This process has joined another's run, and computed what was left.
        StageError: It has joined, and would compute something else.
    """
    path = table_path(workspace, spec, partition)
    parts = workspace.state / "parts" / spec.name / partition
    compared = [name for name in wanted.columns if name in spec.schema.names]
    wanted = wanted.sort(spec.key)

    def make(part: Path, chunk: pl.DataFrame) -> None:
        write_parquet(part, conform(compute(chunk), spec))

    assignment = current_assignment()
    if assignment is not None and assignment.joins:
        shared = crew.SharedWork(workspace, spec, assignment, compared, make, description)
        crew.join(shared, parts, wanted)
    with exclusive_lock(workspace.state / "locks" / spec.name / f"{partition}.lock", description):
        crew.take_down_stale(workspace, spec.name, partition)
        remove_temporary_files(path.parent)
        for leftover in parts.glob(".tmp-*"):  # nobody else writes here now, on any machine
            leftover.unlink()
        stored = sorted(parts.glob("*.parquet"))
        sources = _open([*stored, path], spec)
        current, num_stored = _find_current(
            sources, spec, wanted.select(compared), is_current, keeps_besides
        )
        if drop_stale_first and current.height < num_stored:
            sources, current = _drop_stale(path, spec, sources, current, stored)
            stored = []
        todo = wanted.join(current, on=spec.key, how="anti")
        chunks = Chunks(todo, chunk_size, parts, new_token())
        if len(chunks) > 1 and assignment is not None and crew.is_shared(assignment, spec.name):
            shared = crew.SharedWork(workspace, spec, assignment, compared, make, description)
            crew.lead(shared, chunks)
        else:
            _compute(chunks, make, description)
        if todo.height or stored or current.height != num_stored or not path.exists():
            fresh = [chunks.part(number) for number in range(len(chunks))]
            kept = current.select(spec.key).join(wanted, on=spec.key, how="anti")
            every = pl.concat([wanted.select(spec.key), kept]).sort(spec.key)
            _merge(path, spec, sources, _open(fresh, spec), every, current)
        for part in parts.glob("*.parquet"):
            part.unlink()
    num_dropped = num_stored - current.height
    _LOGGER.info(
        "%s: %d rows reused, %d computed, %d dropped",
        description, wanted.height - todo.height, todo.height, num_dropped,
    )  # fmt: skip
    return IncrementalResult(wanted.height - todo.height, todo.height, num_dropped)


def _compute(chunks: Chunks, make: crew.Make, description: str) -> None:
    """Compute all chunks in this process alone."""
    with Progress(description, chunks.todo.height) as progress:
        for number in range(len(chunks)):
            chunk = chunks.rows(number)
            make(chunks.part(number), chunk)
            progress.advance(chunk.height)


def _open(paths: list[Path], spec: TableSpec) -> list[SortedTable]:
    """Open the files that exist; one of another schema (an older version's) counts as stale."""
    opened = []
    for path in paths:
        if not path.exists():
            continue
        try:
            same = pq.read_schema(path).equals(spec.schema)
        except (pa.ArrowInvalid, OSError):
            same = True  # damaged: opening it says so
        if same:
            opened.append(SortedTable(path, spec))
        else:
            _LOGGER.warning("%s has another schema than table '%s': made again", path, spec.name)
    return opened


def _find_current(
    sources: list[SortedTable],
    spec: TableSpec,
    wanted: pl.DataFrame,
    is_current: Callable[[pl.DataFrame], pl.Series] | None,
    keeps_besides: Callable[[pl.DataFrame], pl.Series] | None,
) -> tuple[pl.DataFrame, int]:
    """Return the keys that need not be computed with the place of their source, and what is stored.

    Where a key is stored several times, the first source that holds counts. Only keys and versions
    are in memory, so that it does not grow with what a row holds.
    """
    compared = wanted.columns
    columns = None if is_current is not None else list(dict.fromkeys([*spec.key, *compared]))
    keys_wanted = wanted.select(spec.key)
    schema = {name: wanted.schema[name] for name in spec.key}
    found = [pl.DataFrame(schema=schema | {"source": pl.Int64, "holds": pl.Boolean})]
    for place, source in enumerate(sources):
        for rows in source.slices(columns):
            held = rows.join(wanted, on=compared, how="semi", nulls_equal=True)
            if is_current is not None and held.height:
                held = held.filter(is_current(held))
            keys = rows.select(spec.key)
            holds = keys.join(held.select(spec.key), on=spec.key, how="semi")
            if keeps_besides is not None:
                others = rows.join(keys_wanted, on=spec.key, how="anti")
                holds = pl.concat([holds, others.filter(keeps_besides(others)).select(spec.key)])
            found.append(
                keys.join(
                    holds.with_columns(holds=True), on=spec.key, how="left", maintain_order="left"
                ).select(*spec.key, source=pl.lit(place, pl.Int64), holds=pl.col("holds"))
            )
    holding_first = pl.concat(found).sort("holds", nulls_last=True, maintain_order=True)
    every = holding_first.unique(spec.key, keep="first", maintain_order=True)
    return every.filter(pl.col("holds").fill_null(False)).drop("holds"), every.height


def _drop_stale(
    path: Path,
    spec: TableSpec,
    sources: list[SortedTable],
    current: pl.DataFrame,
    leftover: list[Path],
) -> tuple[list[SortedTable], pl.DataFrame]:
    """Write the table with its current rows alone; return it as the only source, and their keys."""
    _merge(path, spec, sources, [], current.select(spec.key).sort(spec.key), current)
    for part in leftover:  # everything of it that counts is in the table now
        part.unlink()
    return _open([path], spec), current.with_columns(source=pl.lit(0, pl.Int64))


def _merge(
    path: Path,
    spec: TableSpec,
    stored: list[SortedTable],
    fresh: list[SortedTable],
    every: pl.DataFrame,
    current: pl.DataFrame,
) -> None:
    """Write the table from stored and computed rows, a slice of all its keys at a time."""
    places = every.join(current, on=spec.key, how="left", maintain_order="left")
    with open_table(path, spec) as writer:
        for keys in places.iter_slices(_GROUP_ROWS):
            low, high = keys[spec.key[0]][0], keys[spec.key[0]][-1]
            found = [
                (source, keys.filter(pl.col("source") == place))
                for place, source in enumerate(stored)
            ]
            found += [(source, keys.filter(pl.col("source").is_null())) for source in fresh]
            frames = []
            for source, its in found:
                rows = source.between(low, high) if its.height else None
                if rows is not None:
                    frames.append(rows.join(its, on=spec.key, how="semi"))
            if frames:
                writer.write(pl.concat(frames))
