"""Taking rows out of files of any kind that hold a row an image: Parquet, CSV, JSON, lines."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path, write_text
from agetf_pipeline.upkeep.forget_target import Target

ROW_SUFFIXES = frozenset({".parquet", ".csv", ".json", ".jsonl"})
_PEOPLE = frozenset({"subject", "identity", "person"})


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
    kinds = {".parquet": _parquet, ".csv": _csv, ".json": _json, ".jsonl": _lines}
    try:
        return kinds[path.suffix](path, target, write)
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
    """Return the columns that hold text, or lists of it."""

    def is_text(kind: pa.DataType) -> bool:
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)

    def holds_text(kind: pa.DataType) -> bool:
        its = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
        return is_text(its)

    return [column.name for column in schema if holds_text(column.type)]


def _of_target(rows: pa.Table, target: Target) -> pl.Series:
    """Return which rows are of the target, one boolean each."""
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    tests = [pl.lit(False)]
    for name, kind in frame.schema.items():
        column = pl.col(name)
        if isinstance(kind, pl.List):
            column = column.list.join("\n", ignore_nulls=True)
        if name in _PEOPLE:
            tests.append(column.is_in(list(target.names)))
        if target.literals:
            tests.append(column.str.contains_any(target.literals))
    height = pl.int_range(pl.len())
    marked = frame.lazy().select(pl.any_horizontal(*tests, height < 0).fill_null(False).alias("m"))
    return marked.collect()["m"] if frame.width else pl.Series([False] * rows.num_rows)


def _csv(path: Path, target: Target, write: bool) -> int:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        records = _records(stream.read())
    header = next(csv.reader(records[:1]), [])
    kept = list(records[:1])
    for record in records[1:]:
        cells = next(csv.reader([record]), [])
        named = {c for n, c in zip(header, cells, strict=False) if n in _PEOPLE}
        if not named & target.names and not target.is_in(record):
            kept.append(record)
    num = len(records) - len(kept)
    if num and write:
        with atomic_path(path) as temporary:
            temporary.write_bytes("".join(kept).encode("utf-8", "surrogateescape"))
    return num


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
    kept = [line for line in lines if not target.is_in(line)]
    if len(kept) < len(lines) and write:
        write_text(path, "".join(kept))
    return len(lines) - len(kept)


def _json(path: Path, target: Target, write: bool) -> int:
    text = path.read_text("utf-8", "surrogateescape")
    if not target.is_in(text) and not any(json.dumps(name) in text for name in target.names):
        return 0
    value, num = _pruned(json.loads(text), target)
    if num and write:
        indented = "\n" in text.rstrip("\n")
        pruned = json.dumps(
            value, indent=2 if indented else None, ensure_ascii=False,
            separators=None if indented or ": " in text[:4000] else (",", ":"),
        )  # fmt: skip
        write_text(path, pruned + ("\n" if text.endswith("\n") else ""))
    return num


def _pruned(value: Any, target: Target) -> tuple[Any, int]:
    """Return a JSON value without what names the target, and how many values went.

    A record in a list goes whole where one of its own fields names it; elsewhere the field goes.
    """
    if isinstance(value, list):
        kept, num = [], 0
        for item in value:
            if _names(item, target):
                num += 1
                continue
            left, fewer = _pruned(item, target)
            kept.append(left)
            num += fewer
        return kept, num
    if isinstance(value, dict):
        left_of, num = {}, 0
        for key, item in value.items():
            if target.is_in(key) or (not isinstance(item, dict) and _names(item, target)):
                num += 1
                continue
            left_of[key], fewer = _pruned(item, target)
            num += fewer
        return left_of, num
    return value, 0


def _names(item: Any, target: Target) -> bool:
    """Whether a value is a text that names the target, or a record of it."""
    if isinstance(item, str):
        return item in target.names or target.is_in(item)
    if isinstance(item, dict):
        return any(isinstance(field, str) and _names(field, target) for field in item.values())
    return False
