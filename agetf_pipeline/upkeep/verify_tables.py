"""Every table against its schema: pages, columns, keys, words and ranges, a batch at a time.

Whether values are plausible is for the expectations (`quality`) to say; here it is whether they can
be what a stage wrote.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.examinations import EXAMINATIONS
from agetf_pipeline.data.listing import escape_name
from agetf_pipeline.data.schemas import (
    LABELS,
    NUM_AGE_BINS,
    PREDICTIONS,
    TABLES,
    TRAINING_MANIFEST,
    TableSpec,
)
from agetf_pipeline.data.tables import ALL_PARTITIONS, list_partitions, table_path
from agetf_pipeline.upkeep.verify_survey import READ_ERRORS, Survey, is_partition
from agetf_pipeline.upkeep.verify_values import rules_of

_BATCH_ROWS = 2048
_SUM_TOLERANCE = 1e-3


def examinations_workspace(workspace: Workspace) -> Workspace:
    """Return where ingest keeps what it found in each content."""
    return Workspace(workspace.state / "ingest")


def verify_tables(survey: Survey) -> None:
    """Check every table file on disk, and that there is nothing else among them."""
    cache = examinations_workspace(survey.workspace)
    found = [(survey.workspace, spec) for spec in TABLES.values()] + [(cache, EXAMINATIONS)]
    files = [
        (table_path(workspace, spec, name), spec, name)
        for workspace, spec in found
        for name in list_partitions(workspace, spec)
    ]
    with Progress("verify tables", len(files)) as progress:
        for path, spec, name in files:
            if not _is_named_well(spec, name):
                survey.add("tables/badly_named", path, "a partition's name", escape_name(name))
            elif spec is TRAINING_MANIFEST or survey.wants(name):
                _check_file(survey, path, spec, name)
            progress.advance()
    if survey.partitions is None:
        _find_strays(survey)


def _is_named_well(spec: TableSpec, name: str) -> bool:
    return name == ALL_PARTITIONS if spec is TRAINING_MANIFEST else is_partition(name)


def _find_strays(survey: Survey) -> None:
    """Report what lies among the tables and is none."""
    root = survey.workspace.tables
    for current, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(current) / name
            known = path.relative_to(root).parts[0] in TABLES and len(Path(current).parts) > len(
                root.parts
            )
            if not name.startswith(".") and not (known and path.suffix == ".parquet"):
                survey.add("tables/unknown", path, f"one of {', '.join(TABLES)}", "another file")


def _check_file(survey: Survey, path: Path, spec: TableSpec, partition: str) -> None:
    try:
        survey.count("tables", tables=1, bytes=path.stat().st_size)
        # Not pre-buffered: a whole row group of embeddings would be in memory.
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            if not file.schema_arrow.equals(spec.schema):
                _say_schema(survey, path, spec, file.schema_arrow)
                return
            checks = _TableChecks(survey, path, spec, partition)
            for batch in file.iter_batches(_BATCH_ROWS):
                checks.take(batch)
            checks.report()
    except READ_ERRORS as error:
        survey.add_unreadable(path, error)


def _say_schema(survey: Survey, path: Path, spec: TableSpec, found: pa.Schema) -> None:
    differing = [
        str(field)
        for field in found
        if field.name not in spec.schema.names or not field.equals(spec.schema.field(field.name))
    ]
    missing = [f"no {name}" for name in spec.schema.names if name not in found.names]
    text = ", ".join([*missing, *differing]) or "another order of columns"
    survey.add_unreadable(
        path,
        ValueError(f"Expected it to have the columns of table '{spec.name}'; found {text}"),
    )


class _TableChecks:
    """What is wrong with one table, counted over its batches."""

    def __init__(self, survey: Survey, path: Path, spec: TableSpec, partition: str) -> None:
        self._survey, self._path, self._spec, self._partition = survey, path, spec, partition
        self._last: tuple | None = None
        self._wrong: dict[tuple[str, str], tuple[int, str, str | None]] = {}
        """Check and what was expected, to how often, an example, and its image."""
        self._rules = rules_of(spec, survey.config)

    def take(self, batch: pa.RecordBatch) -> None:
        """Look at some rows."""
        frame = pl.from_arrow(pa.Table.from_batches([batch]))
        assert isinstance(frame, pl.DataFrame)
        self._survey.count("tables", rows=frame.height)
        self._take_keys(frame)
        if "partition" in frame.columns and self._spec is not TRAINING_MANIFEST:
            wrong = frame.filter(pl.col("partition") != self._partition)
            self._note("tables/partition", self._partition, wrong, "partition")
        for rule in self._rules:
            self._note("tables/value", rule.expected, frame.filter(rule.wrong), rule.column)
        self._take_numbers(batch, frame)
        if self._spec is PREDICTIONS:
            self._take_distributions(frame)
        if self._spec is LABELS:
            odd = frame.filter(~_each(frame["experts"], _is_json_object))
            self._note("tables/value", "experts: a JSON object", odd, "experts")

    def _take_keys(self, frame: pl.DataFrame) -> None:
        for key in frame.select(self._spec.key).iter_rows():
            if self._last is not None and key <= self._last:
                check = "tables/duplicate_key" if key == self._last else "tables/order"
                expected = f"rows in the order of {', '.join(self._spec.key)}, each once"
                self._tally(check, expected, " ".join(key), _image(self._spec, key[0]))
            self._last = key

    def _take_numbers(self, batch: pa.RecordBatch, frame: pl.DataFrame) -> None:
        """Every floating-point number is finite, those in lists too; what is unknown is null."""
        for field in self._spec.schema:
            in_list = pa.types.is_list(field.type)
            kind = field.type.value_type if in_list else field.type
            if not pa.types.is_floating(kind) or field.name == "distribution":
                continue
            column = batch.column(field.name)
            values = column.flatten() if in_list else column.drop_null()
            numbers = values.to_numpy(zero_copy_only=False)
            if values.null_count or not np.isfinite(numbers).all():
                finite = pl.col(field.name).is_finite()
                if in_list:
                    element = pl.element().cast(pl.Float32)
                    fine = element.is_finite().fill_null(False)
                    finite = pl.col(field.name).list.eval(fine).list.all()
                odd = frame.filter(~finite)
                self._note("tables/value", f"{field.name}: finite numbers", odd, field.name)

    def _take_distributions(self, frame: pl.DataFrame) -> None:
        bins, one = pl.col("distribution"), f"{NUM_AGE_BINS} numbers >= 0 that sum to 1"
        off = (bins.list.sum() - 1).abs() > _SUM_TOLERANCE
        # A NaN in it makes the sum NaN, which is greater than anything in Polars.
        bad = off | (bins.list.len() != NUM_AGE_BINS) | (bins.list.min() < 0)
        holes = bins.list.eval(pl.element().is_null()).list.any()
        self._note("tables/distribution", one, frame.filter(bad | holes), "distribution")

    def _note(self, check: str, expected: str, wrong: pl.DataFrame, column: str) -> None:
        if not wrong.height:
            return
        first = wrong.row(0, named=True)
        value = first[column]
        shown = f"{column} {f'{len(value)} values' if isinstance(value, list) else repr(value)}"
        self._tally(check, expected, shown, first.get("image_id"), wrong.height)

    def _tally(
        self, check: str, expected: str, example: str, image_id: str | None, num: int = 1
    ) -> None:
        before = self._wrong.get((check, expected))
        if before is None:
            self._wrong[check, expected] = (num, example, image_id)
        else:
            self._wrong[check, expected] = (before[0] + num, *before[1:])

    def report(self) -> None:
        """Say what was wrong, once a kind."""
        for (check, expected), (num, example, image_id) in self._wrong.items():
            found = f"{num} row(s), the first: {example[:200]}"
            self._survey.add(check, self._path, expected, found, image_id)


def _image(spec: TableSpec, first: str) -> str | None:
    return first if spec.key[0] == "image_id" else None


def _each(column: pl.Series, fine: Callable[[str], bool]) -> pl.Series:
    return pl.Series([fine(value) for value in column.to_list()], dtype=pl.Boolean)


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
