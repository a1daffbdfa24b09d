"""Tables read and written a slice at a time."""

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import TableSpec
from agetf_pipeline.data.streaming import SortedTable, open_table, read_slices, side_by_side
from agetf_pipeline.data.tables import read_table, table_path

SPEC = TableSpec(
    "pairs",
    pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("expert", pa.string(), nullable=False),
            pa.field("age_years", pa.float32()),
        ]
    ),
    ("image_id", "expert"),
    "Pairs.",
)


def rows(numbers: range) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"image_id": f"{n:04}", "expert": name, "age_years": float(n)}
            for n in numbers
            for name in ("a", "b")
        ],
        schema={"image_id": pl.String, "expert": pl.String, "age_years": pl.Float32},
    )


@pytest.fixture
def path(tmp_path):
    path = table_path(Workspace(tmp_path), SPEC, "x")
    with open_table(path, SPEC) as writer:
        for start in range(0, 40, 10):
            writer.write(rows(range(start, start + 10)))
    return path


def test_what_is_written_in_slices_is_read_whole_and_in_slices(path, tmp_path):
    workspace = Workspace(tmp_path)
    assert read_table(workspace, SPEC).equals(rows(range(40)))
    slices = list(read_slices(workspace, SPEC, "x", 6))
    assert max(part.height for part in slices) == 6
    assert pl.concat(slices).equals(rows(range(40)))
    assert pl.concat(read_slices(workspace, SPEC, "x", 6, ["age_years"])).columns == ["age_years"]


@pytest.mark.parametrize(("low", "high"), [(0, 0), (5, 14), (9, 10), (35, 39), (0, 39)])
def test_a_range_of_keys_is_found_across_row_groups(path, low, high):
    found = SortedTable(path, SPEC).between(f"{low:04}", f"{high:04}")
    assert found is not None
    assert found.equals(rows(range(low, high + 1)))


def test_nothing_is_read_where_no_row_group_can_hold_the_range(path):
    assert SortedTable(path, SPEC).between("0040", "0050") is None


def test_a_file_without_statistics_is_searched(tmp_path):
    path = tmp_path / "plain.parquet"
    table = rows(range(20)).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(SPEC.schema)
    pq.write_table(table, path, write_statistics=False, row_group_size=8)
    found = SortedTable(path, SPEC).between("0007", "0008")
    assert found is not None
    assert found.equals(rows(range(7, 9)))


def test_slices_out_of_order_are_refused_and_nothing_appears(tmp_path):
    path = tmp_path / "x.parquet"

    def write(*slices: range) -> None:
        with open_table(path, SPEC) as writer:
            for numbers in slices:
                writer.write(rows(numbers))

    with pytest.raises(DataError, match=r"in the order of .*found \('0003', 'a'\) after"):
        write(range(5), range(3, 6))
    assert list(tmp_path.iterdir()) == []


def test_a_table_without_rows(tmp_path):
    path = tmp_path / "x.parquet"
    with open_table(path, SPEC):
        pass
    assert list(SortedTable(path, SPEC).slices()) == []
    assert pq.read_schema(path).equals(SPEC.schema)


def test_damage_is_named(path):
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="Delete it and run the stage"):
        list(SortedTable(path, SPEC).slices())


def test_another_schema_is_refused(tmp_path):
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="columns of table 'pairs'"):
        SortedTable(tmp_path / "x.parquet", SPEC)


def test_batches_cross_row_groups(path):
    whole = pl.concat(SortedTable(path, SPEC).slices())
    batches = list(SortedTable(path, SPEC).batches(7))
    assert [rows.height for rows in batches[:-1]] == [7] * (len(batches) - 1)
    assert pl.concat(batches).equals(whole)


@pytest.mark.parametrize("left_size", [1, 4, 100])
@pytest.mark.parametrize("right_size", [1, 3, 100])
def test_two_tables_are_read_side_by_side(left_size, right_size):
    left = pl.DataFrame({"key": [f"{n:03}" for n in range(0, 40, 2)]})
    right = pl.DataFrame({"key": [f"{n:03}" for n in (1, 2, 2, 3, 8, 9, 30, 38, 38, 50)]})
    pairs = list(side_by_side(left.iter_slices(left_size), right.iter_slices(right_size), "key"))
    assert pl.concat([rows for rows, _ in pairs]).equals(left)
    given = pl.concat([rows for _, rows in pairs if rows is not None])
    assert given.equals(right.filter(pl.col("key") <= "038"))
    joined = [
        rows.join(its, on="key", how="semi")["key"].to_list()
        for rows, its in pairs
        if its is not None
    ]
    assert [key for keys in joined for key in keys] == ["002", "008", "030", "038"]


def test_side_by_side_with_nothing():
    left = pl.DataFrame({"key": ["a"]})
    assert [its for _, its in side_by_side([left], [], "key")] == [None]
    assert list(side_by_side([], [left], "key")) == []
