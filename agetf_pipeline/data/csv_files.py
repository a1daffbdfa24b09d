"""CSV files from outside: read strictly, every problem named with its file and line."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.file_bytes import TooManyBytesError, read_at_most

if TYPE_CHECKING:
    import polars as pl

_MAX_BYTES = 1 << 30
_FORMULA = r"^[=@\t\r]|^[+-](?:[^0-9.]|.*[^0-9.eE+-])"
"""What spreadsheet programs take for a formula; signed numbers are none."""

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec)[a-z]*\.?"
_DATE = re.compile(
    rf"^(?:\d{{1,2}}[-/. ]{_MONTH}(?:[-/. ]\d{{2,4}})?|{_MONTH}[-/. ]\d{{1,4}}(?:[-/, ]+\d{{2,4}})?"
    r"|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[ T][\d:.]+)?"
    r"|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}(?: [\d:.]+)?)$",
    re.IGNORECASE,
)
# What 3-6 and 10-14 become when a spreadsheet stores them as days since 1900.
_SERIAL_DAY = re.compile(r"^4\d{4}(?:\.0)?$")


def read_csv(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV file, with their line numbers and stripped values.

    Args:
        path: The file: UTF-8 (a byte-order mark is fine), commas, a header.
        required: Columns that must be there; others are passed on.

    Raises:
        DataError: The file is not UTF-8, not a CSV, lacks columns, has a row of another length, or
            cannot be read.
    """
    text = io.TextIOWrapper(io.BytesIO(_read_checked(path)), "utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header, required)
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise DataError(
                    f"Expected {len(header)} values in line {reader.line_num} of {path}; found "
                    f"{len(values)}. Quote values that contain commas, or complete the line."
                )
            row = {name: value.strip() for name, value in zip(header, values, strict=True)}
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"Expected a CSV file at {path}; found: {error} in line {reader.line_num}. Correct it."
        ) from error


def for_spreadsheets(frame: "pl.DataFrame", include_header: bool = True) -> str:
    """Return a frame as CSV that opens in a spreadsheet program as the text it is.

    Texts that such a program would run as a formula (`=...`, `@...`, `+...`, `-...`) get an
    apostrophe before them; numbers do not. Lists of files and captions hold texts from outside.

    Source: OWASP, CSV injection.
    """
    import polars as pl

    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    return frame.with_columns(
        pl.when(pl.col(name).str.contains(_FORMULA))
        .then(pl.concat_str(pl.lit("'"), pl.col(name)))
        .otherwise(pl.col(name))
        .alias(name)
        for name in texts
    ).write_csv(include_header=include_header)


def _read_checked(path: Path) -> bytes:
    """Return the bytes of a file that is UTF-8 from one end to the other."""
    try:
        data = read_at_most(path, _MAX_BYTES)
    except TooManyBytesError as error:
        raise DataError(
            f"Expected at most {_MAX_BYTES} bytes in {path}; found {error.num_bytes}. Split it."
        ) from error
    except OSError as error:
        raise DataError(
            f"Expected a readable file at {path}; found: {error.strerror}. Check its permissions."
        ) from error
    if (zero := data.find(b"\0")) >= 0:
        line = data[:zero].count(b"\n") + 1
        raise DataError(
            f"Expected UTF-8 text in {path}; found a zero byte in line {line}: UTF-16, as Excel's "
            "'Unicode text', or no text at all. Save it as 'CSV UTF-8'."
        )
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"Expected UTF-8 text in {path}; found byte 0x{data[error.start]:02x} in line "
            f"{line}. Save it as 'CSV UTF-8'."
        ) from error
    return data


def refuse_spreadsheet_date(path: Path, line: int, column: str, value: str) -> None:
    """Refuse an age group that a spreadsheet program turned into a date; do nothing for others.

    Raises:
        DataError: It is one. The message says which groups suffer and what to do.
    """
    if _DATE.match(value) or _SERIAL_DAY.match(value):
        raise DataError(
            f"Expected an age group such as 3-6 in column {column}, line {line} of {path}; found "
            f"{value!r}, a date. A spreadsheet program turns the groups 3-6, 7-9 and 10-14 into "
            "dates when it opens the file, and the groups cannot be told back surely. Restore the "
            "original file, or export it again with that column imported as text."
        )


def _check_header(path: Path, header: list[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in header]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if missing:
        hint = (
            "The columns are separated by semicolons: save it with commas."
            if len(header) == 1 and ";" in header[0]
            else "Add the columns, with exactly these names in the first line."
        )
        raise DataError(
            f"Expected the columns {','.join(required)} in {path}; missing {', '.join(missing)}, "
            f"found {','.join(header)[:200] or 'no line'}. {hint}"
        )
    if repeated:
        raise DataError(
            f"Expected each column once in {path}; found {', '.join(repeated)} several times. "
            "Rename or remove the others."
        )
