"""Taking rows out of files of any kind that hold a row an image: Parquet, CSV, JSON, lines."""

import csv
import io
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path, write_text
from agetf_pipeline.upkeep.forget_json import pruned
from agetf_pipeline.upkeep.forget_match import PEOPLE, Target

ROW_SUFFIXES = frozenset({".parquet", ".csv", ".json", ".jsonl", ".tsv"})
_PARTITION = "partition"


def count_rows(path: Path, target: Target) -> int:
    """Return how many rows of a file are of the target; a JSON counts each value that goes.

    Raises:
        DataError: The file cannot be read.
    """
    return _process(path, target, write=False)


def remove_rows(path: Path, target: Target) -> int:
    """Rewrite a file without the rows of the target, whole or not at all; return how many went.

    Columns, order, and the text of all other rows stay as they are.

    Raises:
        DataError: The file cannot be read.
    """
    return _process(path, target, write=True)


def _process(path: Path, target: Target, write: bool) -> int:
    kinds = {
        ".parquet": _parquet, ".csv": _csv, ".tsv": _csv, ".json": _json, ".jsonl": _lines,
    }  # fmt: skip
    try:
        return kinds[path.suffix.lower()](path, target, write)
    except (OSError, ValueError, pa.ArrowException, csv.Error) as error:
        raise DataError(
            f"Expected to read {path}, to see who is in it; found: {error}. Delete it, or restore "
            "it, and run this again."
        ) from error


def _parquet(path: Path, target: Target, write: bool) -> int:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        schema, num = file.schema_arrow, 0
        masks = []
        for group in range(file.num_row_groups):
            kept = ~_of_target(file.read_row_group(group, _texts(schema)), target)
            masks.append(kept)
            num += kept.len() - int(kept.sum())
        if not num or not write:
            return num
        with (
            atomic_path(path) as temporary,
            pq.ParquetWriter(
                temporary, schema, compression="zstd", write_page_checksum=True, store_schema=True
            ) as writer,
        ):
            for group, kept in enumerate(masks):
                rows = file.read_row_group(group).filter(kept.to_arrow())
                if rows.num_rows:
                    writer.write_table(rows, row_group_size=rows.num_rows)
    return num


def _texts(schema: pa.Schema) -> list[str]:
    """Return the columns that hold text, at any depth."""
    return [column.name for column in schema if _holds_text(column.type)]


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    return _is_text(kind) or any(
        _holds_text(kind.field(n).type) for n in range(getattr(kind, "num_fields", 0))
    )


def _is_text(kind: pa.DataType) -> bool:
    is_plain = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return is_plain or pa.types.is_string_view(kind)


def _of_target(rows: pa.Table, target: Target) -> pl.Series:
    """Return which rows are of the target, one boolean each."""
    marked = pl.Series([False] * rows.num_rows, dtype=pl.Boolean)
    columns = {name: _values(rows[name]) for name in rows.column_names}
    partitions = columns.get(_PARTITION)
    for name, column in columns.items():
        if column is None:  # lists and records
            found = [pruned({name: value}, target)[1] > 0 for value in rows[name].to_pylist()]
            marked |= pl.Series(found, dtype=pl.Boolean)
            continue
        if name.strip().casefold() in PEOPLE and target.cells:
            marked |= _people_in(column, partitions, target)
        if target.hints:
            hinted = column.str.contains_any(target.hints).fill_null(False)
            places = hinted.arg_true()
            sure = [target.is_in(text) for text in column.gather(places)]
            marked |= pl.Series(hinted).scatter(places, sure) if len(places) else hinted
    return marked


def _values(column: pa.ChunkedArray) -> pl.Series | None:
    """Return a column of texts; None where they stand in lists or records."""
    kind = column.type
    if pa.types.is_dictionary(kind) and _is_text(kind.value_type):
        column = column.cast(pa.large_string())
    elif not _is_text(kind):
        return None
    series = pl.from_arrow(column)
    assert isinstance(series, pl.Series)
    return series


def _people_in(column: pl.Series, partitions: pl.Series | None, target: Target) -> pl.Series:
    likely = column.is_in(target.cells).fill_null(False)
    places = likely.arg_true()
    where = [None] * len(places) if partitions is None else partitions.gather(places).to_list()
    texts = column.gather(places).to_list()
    sure = [target.is_person(text, part) for text, part in zip(texts, where, strict=True)]
    return likely.scatter(places, sure) if len(places) else likely


def _csv(path: Path, target: Target, write: bool) -> int:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        text = stream.read()
    try:
        records, kept = _kept_records(path, text, target)
    except csv.Error:  # a quote that never ends, a field of megabytes: a text of lines
        records = text.splitlines(keepends=True)
        kept = [
            line for line in records
            if not target.is_in(line)
            and not any(target.is_person(cell.strip('" \r\n'), None) for cell in line.split(","))
        ]  # fmt: skip
    num = len(records) - len(kept)
    if num and write:
        with atomic_path(path) as temporary:
            temporary.write_bytes("".join(kept).encode("utf-8", "surrogateescape"))
    return num


def _kept_records(path: Path, text: str, target: Target) -> tuple[list[str], list[str]]:
    records = _records(text)
    first = records[0] if records else ""
    mark = "\t" if path.suffix.lower() == ".tsv" else ";" if "," not in first else ","
    rows = [next(csv.reader([record], delimiter=mark), []) for record in records]
    header = [cell.strip('\ufeff" ').casefold() for cell in (rows[0] if rows else [])]
    # A list without a header has an image in its first line.
    is_headed = not (rows and target.is_in("\n".join(rows[0])))
    kept = records[:1] if is_headed else []
    for record, cells in zip(records[1:], rows[1:], strict=True):
        named = dict(zip(header, cells, strict=False))
        partition = named.get(_PARTITION)
        is_theirs = any(
            target.is_person(cell, partition) for name, cell in named.items() if name in PEOPLE
        ) or any(target.is_identity(cell, partition) for cell in cells)
        if not is_theirs and not target.is_in("\n".join(cells)):
            kept.append(record)
    return records, kept


def _records(text: str) -> list[str]:
    """Divide a CSV into records, line ends included; a quoted field may hold line ends."""
    records, begun = [], ""
    for line in io.StringIO(text, newline=""):
        begun += line
        if begun.count('"') % 2 == 0:
            records.append(begun)
            begun = ""
    return [*records, begun] if begun else records


def _lines(path: Path, target: Target, write: bool) -> int:
    lines = path.read_text("utf-8", "surrogateescape").splitlines(keepends=True)
    kept = [line for line in lines if not _line_names(line, target)]
    if len(kept) < len(lines) and write:
        write_text(path, "".join(kept))
    return len(lines) - len(kept)


def _line_names(line: str, target: Target) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return target.is_in(line)
    return pruned([value], target)[1] > 0


def _json(path: Path, target: Target, write: bool) -> int:
    text = path.read_text("utf-8", "surrogateescape")
    try:
        value, num = pruned(json.loads(text), target)
    except ValueError:
        if target.is_in(text):
            raise
        return 0
    if num and write:
        indented = "\n" in text.rstrip("\n")
        left = json.dumps(
            value, indent=2 if indented else None, ensure_ascii=False,
            separators=None if indented or ": " in text[:4000] else (",", ":"),
        )  # fmt: skip
        write_text(path, left + ("\n" if text.endswith("\n") else ""))
    return num
