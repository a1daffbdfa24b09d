"""Tables that grow chunk by chunk: what is computed, what is kept, and what a kill leaves."""

import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from squares import SPEC

from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.incremental import IncrementalResult, update_table
from agetf_pipeline.data.schemas import TableSpec
from agetf_pipeline.data.streaming import SortedTable
from agetf_pipeline.data.tables import read_table, table_path


def wanted(numbers: range, version: str = "1") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "image_id": [f"{n:03}" for n in numbers],
            "version": [version] * len(numbers),
            "number": list(numbers),
        },
        schema={"image_id": pl.String, "version": pl.String, "number": pl.Int64},
    )


def square(chunk: pl.DataFrame) -> pl.DataFrame:
    return chunk.select("image_id", "version", square=pl.col("number") ** 2)


def update(workspace: Workspace, rows: pl.DataFrame, compute=square) -> IncrementalResult:
    return update_table(workspace, SPEC, "x", rows, compute, 4, "squares")


def left_over(workspace: Workspace) -> list[str]:
    folders = (workspace.state / "parts", workspace.tables)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted(path.name for path in files if path != table_path(workspace, SPEC, "x"))


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "one")


def test_only_missing_and_stale_rows_are_computed(workspace):
    assert update(workspace, wanted(range(10))) == IncrementalResult(0, 10, 0)
    assert update(workspace, wanted(range(10))) == IncrementalResult(10, 0, 0)
    assert update(workspace, wanted(range(2, 14))) == IncrementalResult(8, 4, 2)
    assert update(workspace, wanted(range(2, 14), "2")) == IncrementalResult(0, 12, 12)
    assert read_table(workspace, SPEC)["square"].to_list() == [n**2 for n in range(2, 14)]
    assert left_over(workspace) == []


def test_an_empty_partition_is_a_table_too(workspace):
    assert update(workspace, wanted(range(0))) == IncrementalResult(0, 0, 0)
    assert read_table(workspace, SPEC, ["x"]).height == 0


def test_an_exception_keeps_the_finished_chunks(workspace, tmp_path):
    computed = []

    def failing(chunk: pl.DataFrame) -> pl.DataFrame:
        if len(computed) == 2:
            raise RuntimeError("disk full")
        computed.append(chunk)
        return square(chunk)

    with pytest.raises(RuntimeError):
        update(workspace, wanted(range(20)), failing)
    assert update(workspace, wanted(range(20))) == IncrementalResult(8, 12, 0)
    undisturbed = Workspace(tmp_path / "two")
    update(undisturbed, wanted(range(20)))
    paths = [table_path(each, SPEC, "x") for each in (workspace, undisturbed)]
    assert hash_file(paths[0]) == hash_file(paths[1])
    assert left_over(workspace) == []


KILLED = """
import os, signal, sys
sys.path[:0] = {tests!r}
import test_data_incremental as tests
from pathlib import Path
from agetf_pipeline.core.workspace import Workspace

count = 0

def dying(chunk):
    global count
    if count == {num_chunks}:
        part = Path({root!r}) / "data" / ".state" / "parts" / "squares" / "x"
        part.mkdir(parents=True, exist_ok=True)
        (part / ".tmp-half.parquet").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    return tests.square(chunk)

tests.update(Workspace(Path({root!r})), tests.wanted(range(20)), dying)
"""


@pytest.mark.parametrize("num_chunks", [0, 1, 4])
def test_a_killed_process_loses_at_most_a_chunk(workspace, tmp_path, num_chunks):
    repository = Path(__file__).resolve().parents[3]
    tests = [str(Path(__file__).parent), str(repository / "tests")]
    code = KILLED.format(tests=tests, root=str(workspace.root), num_chunks=num_chunks)
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    # A power cut leaves half-written files too: the killed process left one.
    assert ".tmp-half.parquet" in left_over(workspace)
    expected = IncrementalResult(4 * num_chunks, 20 - 4 * num_chunks, 0)
    assert update(workspace, wanted(range(20))) == expected
    undisturbed = Workspace(tmp_path / "two")
    update(undisturbed, wanted(range(20)))
    paths = [table_path(each, SPEC, "x") for each in (workspace, undisturbed)]
    assert hash_file(paths[0]) == hash_file(paths[1])
    assert left_over(workspace) == []


def test_parts_that_an_interrupted_merge_left_are_not_lost(workspace, monkeypatch):
    update(workspace, wanted(range(4)))

    def dying(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("agetf_pipeline.data.incremental._merge", dying)
        with pytest.raises(KeyboardInterrupt):
            update(workspace, wanted(range(10)))

    assert update(workspace, wanted(range(10))) == IncrementalResult(10, 0, 0)
    assert read_table(workspace, SPEC)["square"].to_list() == [n**2 for n in range(10)]


def test_a_part_whose_rows_no_longer_hold_is_computed_again_under_the_same_keys(workspace):
    def fail_late(chunk: pl.DataFrame) -> pl.DataFrame:
        if chunk["image_id"][0] != "000":
            raise RuntimeError("stop")
        return square(chunk).with_columns(square=pl.lit(-1, pl.Int64))

    with pytest.raises(RuntimeError):
        update(workspace, wanted(range(8)), fail_late)

    def holds(rows: pl.DataFrame) -> pl.Series:
        return rows["square"] >= 0

    result = update_table(workspace, SPEC, "x", wanted(range(8)), square, 4, "squares", holds)
    assert result == IncrementalResult(0, 8, 4)
    assert read_table(workspace, SPEC)["square"].to_list() == [n**2 for n in range(8)]


def test_memory_holds_keys_not_rows(workspace):
    """A slice of the table is in memory at a time, whatever the table's length."""
    most = 0
    read = SortedTable._read

    def watched(self, groups, columns):
        nonlocal most
        rows = read(self, groups, columns)
        most = max(most, rows.height if columns is None else 0)
        return rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agetf_pipeline.data.incremental._GROUP_ROWS", 4)
        update(workspace, wanted(range(0, 400, 2)))
        patch.setattr(SortedTable, "_read", watched)
        assert update(workspace, wanted(range(400))) == IncrementalResult(200, 200, 0)
    assert read_table(workspace, SPEC)["square"].to_list() == [n**2 for n in range(400)]
    assert 0 < most <= 3 * 4


@pytest.mark.parametrize("first", [True, False])
def test_stale_rows_may_leave_before_anything_is_computed(workspace, first):
    update(workspace, wanted(range(12)))
    seen = []

    def watch(chunk: pl.DataFrame) -> pl.DataFrame:
        seen.append(read_table(workspace, SPEC)["image_id"].to_list())
        return square(chunk)

    changed = pl.concat([wanted(range(6)), wanted(range(6, 12), "2")])
    result = update_table(
        workspace, SPEC, "x", changed, watch, 4, "squares", drop_stale_first=first
    )
    assert result == IncrementalResult(6, 6, 6)
    kept = 6 if first else 12
    assert seen == [[f"{n:03}" for n in range(kept)]] * 2
    assert read_table(workspace, SPEC)["version"].to_list() == ["1"] * 6 + ["2"] * 6
    assert left_over(workspace) == []


VERSIONED = TableSpec("versioned", SPEC.schema, ("image_id", "version"), "Squares by version.")


def keep_low(rows: pl.DataFrame) -> pl.Series:
    return rows["image_id"] < "007"


def update_versioned(workspace: Workspace, rows: pl.DataFrame, keeps=keep_low, compute=square):
    return update_table(workspace, VERSIONED, "x", rows, compute, 4, "squares", keeps_besides=keeps)


def test_rows_of_other_versions_stay_where_they_are_wanted_besides(workspace):
    update_versioned(workspace, wanted(range(9), "1"))
    result = update_versioned(workspace, wanted(range(3, 8), "2"))
    assert result == IncrementalResult(0, 5, 2)  # of version 1, those from 007 on go
    rows = read_table(workspace, VERSIONED, ["x"])
    keys = [(f"{n:03}", "1") for n in range(7)] + [(f"{n:03}", "2") for n in range(3, 8)]
    assert rows.select("image_id", "version").rows() == sorted(keys)
    assert rows["square"].to_list() == [int(image_id) ** 2 for image_id, _ in sorted(keys)]

    # Asked for again: nothing is computed, and the other version stays.
    path = table_path(workspace, VERSIONED, "x")
    before = hash_file(path)
    again = update_versioned(workspace, wanted(range(7), "1"), compute=refuse)
    assert again == IncrementalResult(7, 0, 1)  # 007 of version 2 is neither wanted nor kept
    assert update_versioned(workspace, wanted(range(7), "1"), compute=refuse).num_dropped == 0
    assert hash_file(path) != before
    without = update_versioned(workspace, wanted(range(7), "1"), keeps=None, compute=refuse)
    assert without.num_dropped == 4


def refuse(_chunk: pl.DataFrame) -> pl.DataFrame:
    raise AssertionError("nothing is to be computed")


def test_kept_rows_come_through_an_interruption_and_the_dropping_of_stale_ones(workspace):
    update_versioned(workspace, wanted(range(5), "1"))
    chunks = []

    def interrupted(chunk: pl.DataFrame) -> pl.DataFrame:
        chunks.append(chunk)
        if len(chunks) == 2:
            raise KeyboardInterrupt
        return square(chunk)

    with pytest.raises(KeyboardInterrupt):
        update_versioned(workspace, wanted(range(6), "2"), compute=interrupted)
    result = update_table(
        workspace, VERSIONED, "x", wanted(range(6), "2"), square, 4, "squares",
        is_current=lambda rows: rows["square"] != 4, drop_stale_first=True, keeps_besides=keep_low,
    )  # fmt: skip
    assert result == IncrementalResult(3, 3, 1)
    rows = read_table(workspace, VERSIONED, ["x"])
    assert rows["version"].value_counts().sort("version").rows() == [("1", 5), ("2", 6)]
    assert left_over(workspace) == ["x.parquet"]  # the table: no part, nothing temporary
