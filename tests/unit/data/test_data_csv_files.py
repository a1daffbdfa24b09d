"""CSV files from outside that are anything but what they should be, and those we write."""

import io
from pathlib import Path

import polars as pl
import pytest

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data import csv_files
from agetf_pipeline.data.caf import read_manifest
from agetf_pipeline.data.csv_files import for_spreadsheets, read_csv

GOOD = "path,subject,age\na.jpg,ann,20\n"


def rows(path: Path, data: bytes) -> list[dict[str, str]]:
    path.write_bytes(data)
    return [row for _, row in read_csv(path, ("path", "subject", "age"))]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "manifest.csv"


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.replace("\n", "\r").encode(),
        GOOD.rstrip().encode(),
        (GOOD + "\n\n\n").encode(),
        b'path,"subject",age\n"a.jpg",ann, 20\n',
    ],
    ids=["bom", "crlf", "cr", "no end", "empty lines", "quotes"],
)
def test_ways_of_writing_the_same(path, data):
    assert rows(path, data) == [{"path": "a.jpg", "subject": "ann", "age": "20"}]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GOOD.encode("utf-16"), "zero byte in line 1: UTF-16"),
        (GOOD.encode("utf-16-le"), "zero byte in line 1"),
        (GOOD.replace("ann", "Jos\u00e9").encode("latin-1"), "byte 0xe9 in line 2"),
        (GOOD.encode() + b"b\0.jpg,bob,1\n", "zero byte in line 3"),
        (GOOD.encode() + b'"b.jpg,bob,1\nc.jpg,carl,2\n', "unexpected end of data"),
        (GOOD.encode() + b'"b"c.jpg,bob,1\n', "expected after '\"'"),
        (GOOD.replace(",", ";").encode(), "separated by semicolons"),
        (GOOD.encode() + b"x" * 200_000 + b",bob,1\n", "field larger than field limit"),
        (GOOD.encode() + b'"' + b"y\n" * 100_000 + b'",bob,1\n', "field larger than field limit"),
        (b"", "missing path, subject, age"),
        (b"PK\x03\x04\x14\x00\x06\x00", "zero byte"),
    ],
    ids=["utf-16", "utf-16 without mark", "latin-1", "nul", "open quote", "text after a quote",
         "semicolons", "one long field", "one long quote", "empty", "a spreadsheet itself"],
)  # fmt: skip
def test_what_is_no_csv_is_refused_with_its_line(path, data, said):
    with pytest.raises(DataError, match=said) as caught:
        rows(path, data)
    assert str(path) in str(caught.value)


def test_a_line_of_a_hundred_megabytes_is_refused_for_its_field(path):
    with pytest.raises(DataError, match="field larger than field limit"):
        rows(path, GOOD.encode() + b"z" * 100_000_000)


def test_a_file_over_the_limit_is_not_read(path, monkeypatch):
    monkeypatch.setattr(csv_files, "_MAX_BYTES", 20)
    with pytest.raises(DataError, match=r"at most 20 bytes.*found 30"):
        rows(path, GOOD.encode())


def test_many_rows_are_no_trouble(path):
    many = "".join(f"{n:06}.jpg,s{n},30\n" for n in range(100_000))
    assert len(rows(path, (GOOD + many).encode())) == 100_001


def test_names_of_every_kind_are_read_as_they_stand(path):
    names = ['-rf.jpg', 'a "b".jpg', "line\nbreak.jpg", "\u202egpj.exe", "\U0001f600.jpg",
             "=cmd().jpg", "n" * 255, "/".join(["d" * 200] * 20), "tab\there.jpg"]  # fmt: skip
    frame = pl.DataFrame({"path": names, "subject": "s", "age": "1"})
    assert [row["path"] for row in rows(path, frame.write_csv().encode())] == names
    assert [row.listed for row in read_manifest(path.parent)] == names


RISKY = ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3+cmd|x", "\t=1", "\r=1", "=HYPERLINK(1)"]
PLAIN = ["a.jpg", "-1.5", "+3e-7", "", "3-6", "a=b", "'quoted'", "2024-01-01"]


def test_what_we_write_does_not_run_in_a_spreadsheet():
    frame = pl.DataFrame({"text": [*RISKY, *PLAIN, None], "number": -1.0})
    back = pl.read_csv(io.StringIO(for_spreadsheets(frame)), infer_schema=False)
    assert back["text"].to_list()[: len(RISKY)] == [f"'{text}" for text in RISKY]
    assert back["text"].to_list()[len(RISKY) : -1] == PLAIN
    assert set(back["number"]) == {"-1.0"}
