"""A table of every type of column survives being written with nulls and read again."""

import pyarrow as pa
import pytest

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import TABLES
from agetf_pipeline.data.tables import read_table, to_frame, write_table


def _some(kind):
    if pa.types.is_list(kind):
        return ["a"] if pa.types.is_string(kind.value_type) else [0.5, 0.5]
    if pa.types.is_string(kind):
        return "x"
    return True if pa.types.is_boolean(kind) else 1


@pytest.mark.parametrize("name", sorted(TABLES))
def test_rows_with_and_without_nulls_come_back(name, tmp_path):
    spec = TABLES[name]
    full = {column.name: _some(column.type) for column in spec.schema}
    rows = [dict(full), dict(full), dict(full)]
    for n, row in enumerate(rows):
        row[spec.key[0]] = f"k{n}"
    rows[1] |= {column.name: None for column in spec.schema if column.nullable}
    frame = to_frame(rows, spec)
    write_table(Workspace(tmp_path), spec, "p", frame)
    assert read_table(Workspace(tmp_path), spec, ["p"]).equals(frame)
