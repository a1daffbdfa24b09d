"""Tables larger than memory: read and written a slice at a time, in the order of their key.

A table is sorted by its key, so the rows of a range of keys lie in a few neighbouring row groups,
which the file's own statistics name.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import TableSpec
from agetf_pipeline.data.tables import DAMAGED, conform, table_path


class SortedTable:
    """One Parquet file of a table, read by ranges of the first column of its key."""

    def __init__(self, path: Path, spec: TableSpec) -> None:
        """Open the file and read where its row groups begin and end.

        Raises:
            DataError: It is damaged, or has other columns or types than the schema.
        """
        self._path, self._key = path, spec.key[0]
        self._metadata: pq.FileMetaData | None = None
        with self._open() as file:
            # Of a table of millions of rows, reading it takes longer than a row group. Of a part it
            # is quick, and there may be thousands of those.
            self._metadata = file.metadata if file.num_row_groups > 1 else None
            if not file.schema_arrow.equals(spec.schema):
                raise DataError(
                    f"Expected {path} to have the columns of table '{spec.name}'; found "
                    f"{file.schema_arrow.names}. It was made by another version: delete it and "
                    "run the stage."
                )
            place = file.schema_arrow.get_field_index(self._key)
            groups = range(file.num_row_groups)
            self._bounds = [_bounds(file.metadata.row_group(g).column(place)) for g in groups]

    def slices(self, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows in order, a row group at a time."""
        for group in range(len(self._bounds)):
            yield self._read([group], columns)

    def batches(self, size: int, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows in order, `size` at a time (fewer at the end), whatever the row groups.

        What is held does not grow with the table, nor with its row groups.
        """
        held: list[pl.DataFrame] = []
        for frame in self._pieces(size, columns):
            held.append(frame)
            while sum(rows.height for rows in held) >= size:
                rows = pl.concat(held)
                yield rows[:size]
                held = [rows[size:]] if rows.height > size else []
        if held:
            yield pl.concat(held)

    def _pieces(self, size: int, columns: list[str] | None) -> Iterator[pl.DataFrame]:
        """Yield the rows in order, at most `size` at a time, never of two row groups."""
        with self._open() as file:
            for group in range(len(self._bounds)):
                # Asked for all row groups at once, Arrow holds what it read until the last; and
                # a thread a column gains no time here, but each keeps memory.
                batches = file.iter_batches(
                    size, row_groups=[group], columns=columns, use_threads=False
                )
                for batch in batches:
                    frame = pl.from_arrow(batch)
                    assert isinstance(frame, pl.DataFrame)
                    yield frame

    def between(self, low: str, high: str, columns: list[str] | None = None) -> pl.DataFrame | None:
        """Return the rows whose key's first column lies in `low`..`high`, both included.

        None where the row groups' bounds say that there is none. `columns` are to include the
        key's first.
        """
        groups = [
            group
            for group, (first, last) in enumerate(self._bounds)
            if (first is None or first <= high) and (last is None or last >= low)
        ]
        if not groups:
            return None
        return self._read(groups, columns).filter(
            pl.col(self._key).is_between(pl.lit(low), pl.lit(high))
        )

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        # Opened for each read: a table may lie in thousands of parts.
        try:
            with pq.ParquetFile(
                self._path, metadata=self._metadata, page_checksum_verification=True
            ) as file:
                yield file
        except DAMAGED as error:
            raise DataError(
                f"Expected a readable Parquet file at {self._path}; found: {error}. "
                "Delete it and run the stage that makes it again."
            ) from error

    def _read(self, groups: list[int], columns: list[str] | None) -> pl.DataFrame:
        with self._open() as file:
            frame = pl.from_arrow(file.read_row_groups(groups, columns=columns))
        assert isinstance(frame, pl.DataFrame)
        return frame


def _bounds(column: pq.ColumnChunkMetaData) -> tuple[str | None, str | None]:
    """Return the least and the greatest value of a row group; None where they are not known."""
    statistics = column.statistics if column.is_stats_set else None
    if statistics is None or not statistics.has_min_max:
        return None, None
    return statistics.min, statistics.max


class TableWriter:
    """Writes a table slice by slice, in the order of its key; see `open_table`."""

    def __init__(self, writer: pq.ParquetWriter, spec: TableSpec) -> None:
        self._writer, self._spec = writer, spec
        self._last: tuple | None = None
        self.num_rows = 0

    def write(self, rows: pl.DataFrame) -> None:
        """Append rows as one row group.

        Raises:
            DataError: They do not fit the schema, or their keys are not above those before.
        """
        if not rows.height:
            return
        table = conform(rows, self._spec)
        ends = [table.slice(at, 1).select(self._spec.key) for at in (0, table.num_rows - 1)]
        first, last = (tuple(end.to_pylist()[0].values()) for end in ends)
        if self._last is not None and first <= self._last:
            raise DataError(
                f"Expected rows of table '{self._spec.name}' in the order of {self._spec.key}; "
                f"found {first} after {self._last}. Sort what is written."
            )
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._last = last
        self.num_rows += table.num_rows


@contextmanager
def open_table(path: Path, spec: TableSpec) -> Iterator[TableWriter]:
    """Write a table slice by slice; its name appears when the block ends well, whole.

    Args:
        path: The file.
        spec: What it holds.

    Yields:
        What takes the slices. Without any, the table has no rows.
    """
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary, spec.schema, compression="zstd", write_page_checksum=True, store_schema=True
        ) as writer,
    ):
        yield TableWriter(writer, spec)


def read_slices(
    workspace: Workspace,
    spec: TableSpec,
    partition: str,
    size: int,
    columns: list[str] | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield a partition's rows in order, at most `size` at a time.

    Raises:
        DataError: The partition is not there, or cannot be read.
    """
    path = table_path(workspace, spec, partition)
    if not path.exists():
        raise DataError(
            f"Expected table '{spec.name}' of '{partition}' at {path}; found nothing. "
            "Run the stage that makes it first."
        )
    yield from SortedTable(path, spec).batches(size, columns)


def together(slices: Iterable[pl.DataFrame], size: int) -> Iterator[pl.DataFrame]:
    """Yield several slices as one, of at least `size` rows; the last may have fewer."""
    held: list[pl.DataFrame] = []
    for rows in slices:
        held.append(rows)
        if sum(each.height for each in held) >= size:
            yield pl.concat(held)
            held = []
    if held:
        yield pl.concat(held)


def compact(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a copy: the strings of a few rows otherwise keep those of their slice in memory."""
    copied = pl.from_arrow(rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
    assert isinstance(copied, pl.DataFrame)
    return copied


class Cursor:
    """Gives out the rows of a sorted table up to one key after another; see `side_by_side`."""

    def __init__(self, slices: Iterable[pl.DataFrame], key: str) -> None:
        """Begin before the first row; slices may be of any size."""
        self._source, self._key = iter(slices), key
        self._rest = next(self._source, None)

    def take(self, last: str) -> pl.DataFrame | None:
        """Return the rows of keys up to `last` that were not given out yet; None without any."""
        found = []
        while self._rest is not None:
            end = int(self._rest[self._key].search_sorted(last, side="right"))
            if end:
                found.append(self._rest[:end])
            if end < self._rest.height:
                self._rest = self._rest[end:]
                break
            self._rest = next(self._source, None)
        return pl.concat(found) if found else None


def side_by_side(
    left: Iterable[pl.DataFrame], right: Iterable[pl.DataFrame], key: str
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame | None]]:
    """Yield each slice of one table with the rows of another that go with it.

    Both are read once, and what is held of the second are its rows of one slice of the first.

    Args:
        left: Slices of rows, sorted by `key` over all of them.
        right: The same, of the other table; its slices may be of any size.
        key: Name of the column.

    Yields:
        A slice of `left`, and all rows of `right` up to the slice's last key that no earlier slice
        was given; None where there is none. Some may be of keys that `left` does not have.
    """
    cursor = Cursor(right, key)
    for rows in left:
        yield rows, cursor.take(rows[key][-1])
