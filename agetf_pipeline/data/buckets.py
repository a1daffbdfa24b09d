"""Rows of many sorted sources brought into one order, by way of the disk.

Ids are hashes, so ranges of them hold about as many rows each. Rows go into a file a range as they
come; each file is then small enough to be sorted in memory. What is held does not grow with the
rows, and each is written and read once more, however many sources there are.
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa

from agetf_pipeline.core.storage_errors import writing_to

_MAX_BUCKETS = 256
"""Open files; beyond it buckets grow: at 100 million rows, to 400,000 each."""


class Buckets:
    """Takes slices of rows in any order; gives them back a range of keys at a time.

    Where one bucket is enough, nothing is written.
    """

    def __init__(self, folder: Path, key: str, num_rows: int, bucket_rows: int) -> None:
        """Prepare for about `num_rows` rows, `bucket_rows` to a bucket."""
        number = max(1, min(_MAX_BUCKETS, -(-num_rows // bucket_rows)))
        self._folder, self._key = folder, key
        # The first eight hexadecimal digits; any other key has its place among them, too.
        self._bounds = pl.Series([f"{place * 2**32 // number:08x}" for place in range(1, number)])
        self._held: list[pl.DataFrame] = []
        self._open: dict[int, pa.RecordBatchFileWriter] = {}
        self._stack = ExitStack()

    def add(self, rows: pl.DataFrame) -> None:
        """Take rows; all slices have the same columns."""
        if not len(self._bounds):
            self._held.append(rows)
            return
        rows = rows.sort(self._key)
        ends = rows[self._key].search_sorted(self._bounds, side="left").to_list()
        for place, (low, high) in enumerate(zip([0, *ends], [*ends, rows.height], strict=True)):
            if high > low:
                self._write(place, rows[low:high])

    def take(self) -> Iterator[pl.DataFrame]:
        """Yield what was added, a bucket at a time, in the order of the ranges."""
        if self._held:
            yield pl.concat(self._held)
            self._held = []
        self._stack.close()
        for place in sorted(self._open):
            path = self._path(place)
            with pa.ipc.open_file(str(path)) as file:
                rows = pl.from_arrow(file.read_all())
            assert isinstance(rows, pl.DataFrame)
            path.unlink()
            yield rows

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def _write(self, place: int, rows: pl.DataFrame) -> None:
        table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
        with writing_to(self._path(place)):
            if place not in self._open:
                writer = pa.ipc.new_file(str(self._path(place)), table.schema)
                self._open[place] = self._stack.enter_context(writer)
            self._open[place].write_table(table)

    def _path(self, place: int) -> Path:
        return self._folder / f"{place:04d}.arrow"


@contextmanager
def open_buckets(folder: Path, key: str, num_rows: int, bucket_rows: int) -> Iterator[Buckets]:
    """Give buckets that lie in a new folder below `folder` while the block runs.

    Args:
        folder: Whoever calls has it for themselves: what a killed run left there is removed.
        key: A column of text, to whose ranges the buckets belong.
        num_rows: About how many rows will come.
        bucket_rows: How many of them are to be in memory at once.

    Raises:
        StorageError: The disk is full or broken, or may not be written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with writing_to(folder):
        folder.mkdir(parents=True)
    buckets = Buckets(folder, key, num_rows, bucket_rows)
    try:
        yield buckets
    finally:
        buckets.close()
        shutil.rmtree(folder, ignore_errors=True)
