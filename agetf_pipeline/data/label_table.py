"""Files of age labels for FFHQ images, in two layouts: the dataset's own, and a relabelling.

A relabelling is `image_number,age_group,gender,race`, with `00012.png` or `12` as the number and 0
to 9 (or the group's name) as the group, as it has been published with research code. Both layouts
are read as strictly as `ingest` reads labels, and become one table.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.data.csv_files import read_csv, refuse_spreadsheet_date
from agetf_pipeline.data.ffhq_aging import GENDERS, LABEL_COLUMNS, read_labels

Layout = Literal["ffhq_aging", "relabelling"]

RELABEL_COLUMNS: tuple[str, ...] = ("image_number", "age_group", "gender", "race")
LAYOUTS: dict[Layout, tuple[str, ...]] = {
    "ffhq_aging": LABEL_COLUMNS,
    "relabelling": RELABEL_COLUMNS,
}

SCHEMA: dict[str, type[pl.DataType]] = {
    "image_number": pl.Int32,
    "age_group": pl.String,
    "age_group_confidence": pl.Float64,
    "gender": pl.String,
    "gender_confidence": pl.Float64,
    "head_pitch": pl.Float64,
    "head_roll": pl.Float64,
    "head_yaw": pl.Float64,
    "left_eye_occluded": pl.Float64,
    "right_eye_occluded": pl.Float64,
    "glasses": pl.String,
    "race": pl.String,
}
"""Columns of the table. Null: the file says nothing, or its layout has no such column."""

_GROUP_OF = {str(index): group for index, group in enumerate(AGE_GROUPS)} | {
    group: group for group in AGE_GROUPS
}
_NUMBER = r"^(?:[^/]+/)?([0-9]{1,10})(?:\.(?:png|jpg|jpeg|webp))?$"
_MAX_NUMBER = 2**31 - 1
_MISSING = ("", "-1")
_MAX_LINES = 5


@dataclass(frozen=True)
class LabelTable:
    """The labels of one file.

    Attributes:
        path: The file.
        layout: Its layout.
        frame: One row an image, columns and types of `SCHEMA`, sorted by `image_number`.
    """

    path: Path
    layout: Layout
    frame: pl.DataFrame


def read_label_table(path: Path) -> LabelTable:
    """Read a file of labels in either layout.

    Raises:
        DataError: There is no such file, it is not a CSV in UTF-8, has the columns of neither
            layout, lists an image twice, or holds a value that the layout does not have; groups
            that a spreadsheet turned into dates are named as such.
    """
    if not path.is_file():
        raise DataError(
            f"Expected a CSV file of labels at {path}; found nothing. Give its path, such as "
            "data/raw/ffhq_aging/ffhq_aging_labels.csv."
        )
    layout = _layout_of(path)
    frame = _read_ffhq_aging(path) if layout == "ffhq_aging" else _read_relabelling(path)
    return LabelTable(path, layout, frame.sort("image_number"))


def _layout_of(path: Path) -> Layout:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        header = [name.strip() for name in next(csv.reader(stream), [])]
    for layout, columns in LAYOUTS.items():
        if set(columns) <= set(header):
            return layout
    semicolons = len(header) == 1 and ";" in header[0]
    wanted = "; or ".join(
        f"{','.join(columns)} ({layout}; missing {', '.join(_absent(columns, header))})"
        for layout, columns in LAYOUTS.items()
    )
    raise DataError(
        f"Expected the columns of one of two layouts in the first line of {path}: {wanted}; found "
        f"{','.join(header)[:200] or 'no line'}. "
        + (
            "The columns are separated by semicolons: save it with commas."
            if semicolons
            else "Give the file these column names, exactly."
        )
    )


def _absent(columns: tuple[str, ...], header: list[str]) -> list[str]:
    return [name for name in columns if name not in header]


def _read_ffhq_aging(path: Path) -> pl.DataFrame:
    labels = read_labels(path).values()
    columns = {
        name: [getattr(label, name, None) for label in labels] for name in SCHEMA if name != "race"
    }
    frame = pl.DataFrame(columns, schema={name: SCHEMA[name] for name in columns})
    return frame.with_columns(pl.lit(None, pl.String).alias("race"))


def _read_relabelling(path: Path) -> pl.DataFrame:
    lines: list[int] = []
    columns: dict[str, list[str]] = {name: [] for name in RELABEL_COLUMNS}
    for line, values in read_csv(path, RELABEL_COLUMNS):
        lines.append(line)
        for name in RELABEL_COLUMNS:
            columns[name].append(values[name])
    texts = pl.DataFrame({"line": lines, **columns}, schema=_text_schema())
    number = pl.col("image_number").str.extract(_NUMBER).cast(pl.Int64)
    group = pl.col("age_group").replace_strict(_GROUP_OF, default=None, return_dtype=pl.String)
    empty = pl.col("age_group").is_in(_MISSING)
    read = texts.with_columns(
        number=pl.when(number <= _MAX_NUMBER).then(number).cast(pl.Int32), group=group
    )
    _refuse(
        path, read.filter(pl.col("number").is_null()), "image_number",
        "a number such as 00012.png or 12",
    )  # fmt: skip
    _refuse(
        path, read.filter(pl.col("group").is_null() & ~empty), "age_group",
        f"0 to {len(AGE_GROUPS) - 1}, or one of {', '.join(AGE_GROUPS)}", refuse_spreadsheet_date,
    )  # fmt: skip
    _refuse(
        path, read.filter(~pl.col("gender").is_in([*GENDERS, *_MISSING])), "gender",
        f"one of {', '.join(GENDERS)}",
    )  # fmt: skip
    _refuse_repeated(path, read)
    nothing = {name: pl.lit(None, kind).alias(name) for name, kind in SCHEMA.items()}
    known = {
        "image_number": pl.col("number").alias("image_number"),
        "age_group": pl.col("group").alias("age_group"),
        "gender": _known("gender"),
        "race": _known("race"),
    }
    return read.select((nothing | known).values())


def _text_schema() -> dict[str, type[pl.DataType]]:
    return {"line": pl.Int64, **dict.fromkeys(RELABEL_COLUMNS, pl.String)}


def _known(column: str) -> pl.Expr:
    value = pl.col(column)
    return pl.when(~value.is_in(_MISSING)).then(value).alias(column)


def _refuse(
    path: Path,
    bad: pl.DataFrame,
    column: str,
    expected: str,
    explain: Callable[[Path, int, str, str], None] | None = None,
) -> None:
    """Refuse a file because of rows, if there are any; `explain` may know a better message."""
    if not bad.height:
        return
    line, found = bad.row(0, named=True)["line"], bad[column][0]
    if explain is not None:
        explain(path, line, column, found)
    others = bad["line"].to_list()[1 : _MAX_LINES + 1]
    further = bad.height - 1 - len(others)
    also = f" (and lines {', '.join(map(str, others))}" if others else ""
    also += f" and {further} more" if further else ""
    also += ")" if others else ""
    raise DataError(
        f"Expected {expected} in column {column}, line {line} of {path}; found {found!r}{also}. "
        "Correct these lines, or restore the original file."
    )


def _refuse_repeated(path: Path, read: pl.DataFrame) -> None:
    several = read.filter(pl.col("number").is_duplicated())
    if not several.height:
        return
    number = several["number"][0]
    lines = several.filter(pl.col("number") == number)["line"].to_list()
    raise DataError(
        f"Expected each image once in {path}; found image_number {number} in lines "
        f"{', '.join(map(str, lines[:_MAX_LINES]))}; {several['number'].n_unique()} numbers stand "
        "there several times. Keep the right lines."
    )
