"""Reading and writing the tables of a workspace, always against their schema."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import TableSpec

# Arrow's own pools keep what is freed: over 50,000 rows read in slices, a third more memory at the
# same speed.
pa.set_memory_pool(pa.system_memory_pool())

ALL_PARTITIONS = "all"
"""Partition name of a table that is one file for every corpus (the training manifest)."""

DAMAGED = (pa.ArrowException, OSError, ValueError)
"""What Arrow raises on Parquet files that are none any more; ValueError: a name of a column that is
not UTF-8."""


def table_path(workspace: Workspace, spec: TableSpec, partition: str) -> Path:
    """Return the file of one partition of a table (it need not exist)."""
    return workspace.tables / spec.name / f"{partition}.parquet"


def list_partitions(workspace: Workspace, spec: TableSpec) -> list[str]:
    """Return the partitions of a table that have been written, sorted."""
    folder = workspace.tables / spec.name
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix()
        for path in folder.rglob("[!.]*.parquet")
    )


def conform(frame: pl.DataFrame, spec: TableSpec) -> pa.Table:
    """Return `frame` as an Arrow table of the spec's schema, sorted by its key.

    Raises:
        DataError: A column is missing, unknown or of another type; a required value is null; two
            rows have the same key.
    """
    missing = sorted(set(spec.schema.names) - set(frame.columns))
    unknown = sorted(set(frame.columns) - set(spec.schema.names))
    if missing or unknown:
        raise DataError(
            f"Expected the columns of table '{spec.name}'; missing {missing}, unknown {unknown}. "
            "Change the stage that makes the table, or agetf_pipeline/data/schemas.py."
        )
    ordered = _in_order(frame.select(spec.schema.names), spec)
    try:
        table = ordered.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(spec.schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise DataError(f"Table '{spec.name}' does not fit its schema: {error}") from error
    for column in spec.schema:
        if not column.nullable and table[column.name].null_count:
            raise DataError(
                f"Expected no null in {spec.name}.{column.name}; "
                f"found {table[column.name].null_count} of {table.num_rows}."
            )
    # In order: equal keys are neighbours.
    same = ordered.select(pl.all_horizontal(pl.col(k) == pl.col(k).shift() for k in spec.key).any())
    if same.item():
        raise DataError(f"Expected one row per {spec.key} in table '{spec.name}'; found several.")
    return table


def _in_order(frame: pl.DataFrame, spec: TableSpec) -> pl.DataFrame:
    """Return the rows sorted by the table's key; most come so, and looking is cheaper."""
    first = frame[spec.key[0]]
    if len(spec.key) == 1 and first.is_sorted() and not first.null_count():
        return frame
    return frame.sort(spec.key)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write an Arrow table as Parquet (zstd, page checksums), atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", write_page_checksum=True, store_schema=True
        )


def write_table(workspace: Workspace, spec: TableSpec, partition: str, frame: pl.DataFrame) -> Path:
    """Check `frame` against the schema and write it as one partition. Returns its file."""
    path = table_path(workspace, spec, partition)
    write_parquet(path, conform(frame, spec))
    return path


def empty_frame(spec: TableSpec) -> pl.DataFrame:
    """Return a table without rows."""
    frame = pl.from_arrow(spec.schema.empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


def to_frame(rows: list[dict], spec: TableSpec) -> pl.DataFrame:
    """Return rows (dicts with every column of the spec) as a frame of its types."""
    frame = pl.from_arrow(pa.Table.from_pylist(rows, schema=spec.schema))
    assert isinstance(frame, pl.DataFrame)
    return frame


def read_parquet(path: Path, spec: TableSpec) -> pl.DataFrame:
    """Read one Parquet file and check it against the schema.

    Raises:
        DataError: The file is damaged, or has other columns or types than the schema.
    """
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
    except DAMAGED as error:
        raise DataError(
            f"Expected a readable Parquet file at {path}; found: {error}. "
            "Delete it and run the stage that makes it again."
        ) from error
    if not table.schema.equals(spec.schema):
        raise DataError(
            f"Expected {path} to have the columns of table '{spec.name}'; found "
            f"{table.schema.names}. It was made by another version: delete it and run the stage."
        )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def read_table(
    workspace: Workspace, spec: TableSpec, partitions: list[str] | None = None
) -> pl.DataFrame:
    """Read partitions of a table (all that exist by default), each sorted by its key.

    Raises:
        DataError: A partition that was asked for is not there, or cannot be read.
    """
    wanted = list_partitions(workspace, spec) if partitions is None else partitions
    frames = []
    for partition in wanted:
        path = table_path(workspace, spec, partition)
        if not path.exists():
            raise DataError(
                f"Expected table '{spec.name}' of '{partition}' at {path}; found nothing. "
                "Run the stage that makes it first."
            )
        frames.append(read_parquet(path, spec))
    return pl.concat(frames) if frames else empty_frame(spec)


def num_rows(workspace: Workspace, spec: TableSpec, partition: str) -> int:
    """Return how many rows a partition has, by the file's own word.

    Raises:
        DataError: It is not there, or is damaged.
    """
    path = table_path(workspace, spec, partition)
    try:
        return pq.read_metadata(path).num_rows
    except DAMAGED as error:
        raise DataError(
            f"Expected a readable Parquet file at {path}; found: {error}. "
            "Delete it and run the stage that makes it again."
        ) from error


def table_hashes(
    workspace: Workspace, spec: TableSpec, partitions: list[str] | None = None
) -> dict[str, str]:
    """Return `{"<table>/<partition>": sha256}` of the partitions that exist, for fingerprints."""
    wanted = list_partitions(workspace, spec) if partitions is None else partitions
    return {
        f"{spec.name}/{partition}": hash_file(table_path(workspace, spec, partition))
        for partition in wanted
        if table_path(workspace, spec, partition).exists()
    }
