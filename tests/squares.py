"""A small table for tests of tables: numbers and their squares."""

import pyarrow as pa

from agetf_pipeline.data.schemas import TableSpec

SPEC = TableSpec(
    "squares",
    pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("square", pa.int64()),
        ]
    ),
    ("image_id",),
    "Squares.",
)
