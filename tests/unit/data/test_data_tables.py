"""Tables against their schemas: what is refused, what is written, and that bytes repeat."""

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import TABLES, TableSpec
from agetf_pipeline.data.tables import (
    conform,
    empty_frame,
    list_partitions,
    read_parquet,
    read_table,
    table_hashes,
    table_path,
    to_frame,
    write_table,
)

SPEC = TableSpec(
    "things",
    pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("age_years", pa.float32()),
            pa.field("flags", pa.list_(pa.string()), nullable=False),
        ]
    ),
    ("image_id",),
    "Things.",
)


def frame(*ids: str) -> pl.DataFrame:
    rows = [{"image_id": i, "age_years": 1.5, "flags": ["a"]} for i in ids]
    return to_frame(rows, SPEC)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


def test_a_table_is_sorted_by_its_key_and_the_same_bytes_again(workspace):
    first = hash_file(write_table(workspace, SPEC, "caf/a", frame("b", "a")))
    second = hash_file(write_table(workspace, SPEC, "caf/a", frame("a", "b")))
    assert first == second
    assert read_table(workspace, SPEC)["image_id"].to_list() == ["a", "b"]
    assert list_partitions(workspace, SPEC) == ["caf/a"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop("flags"), r"missing \['flags'\]"),
        (lambda f: f.with_columns(more=1), r"unknown \['more'\]"),
        (lambda f: f.with_columns(age_years=pl.lit("old")), "does not fit its schema"),
        (lambda f: f.with_columns(image_id=pl.lit(None, pl.String)), "image_id.* null"),
        (lambda f: pl.concat([f, f]), "one row per"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(change, said):
    with pytest.raises(DataError, match=said):
        conform(change(frame("a")), SPEC)


def test_a_damaged_file_is_named(workspace):
    path = write_table(workspace, SPEC, "x", frame(*[f"{i:064}" for i in range(500)]))
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"readable Parquet.*x\.parquet"):
        read_parquet(path, SPEC)


def test_a_file_of_another_schema_is_refused(workspace):
    path = table_path(workspace, SPEC, "x")
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"image_id": ["a"]}), path)
    with pytest.raises(DataError, match="another version"):
        read_parquet(path, SPEC)


def test_a_partition_that_is_not_there_is_named(workspace):
    with pytest.raises(DataError, match="Run the stage that makes it first"):
        read_table(workspace, SPEC, ["caf/none"])
    assert read_table(workspace, SPEC).equals(empty_frame(SPEC))


def test_hashes_name_table_and_partition(workspace):
    path = write_table(workspace, SPEC, "caf/a", frame("a"))
    assert table_hashes(workspace, SPEC) == {"things/caf/a": hash_file(path)}
    assert table_hashes(workspace, SPEC, ["caf/b"]) == {}


@pytest.mark.parametrize("spec", TABLES.values(), ids=lambda spec: spec.name)
def test_every_table_of_the_contract_can_be_written_empty_and_read_again(workspace, spec):
    write_table(workspace, spec, "x", empty_frame(spec))
    assert read_table(workspace, spec).height == 0
    assert set(spec.key) <= set(spec.schema.names)
    assert not any(spec.schema.field(name).nullable for name in spec.key)
