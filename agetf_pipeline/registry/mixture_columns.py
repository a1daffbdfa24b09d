"""What the served mixture says of a picture: its columns, from rows of `estimate_ages`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

COLUMNS = {
    "image_index": "Int64",
    "age_years": "Float64",
    "variance_years2": "Float64",
    "between_variance_years2": "Float64",
    "interval_low_years": "Float64",
    "interval_high_years": "Float64",
    "age_group": "object",
    "num_experts": "Int64",
    "calibrated": "boolean",
    "reason": "object",
    "flags": "object",
    "note": "object",
}
"""Column to pandas dtype; every one can hold a missing value, which JSON writes as null."""


def to_table(rows: "pl.DataFrame") -> "pd.DataFrame":
    """Return rows of `agetf_pipeline.experts.estimate.SCHEMA`, in their order, as `COLUMNS`."""
    import pandas as pd

    values = rows.with_row_index("image_index").to_dict(as_series=False)
    return pd.DataFrame(
        {
            name: pd.Series(values[name], dtype=kind)  # type: ignore[call-overload]
            for name, kind in COLUMNS.items()
        }
    )
