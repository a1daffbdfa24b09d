"""What the guards read of the tables: slices side by side, never a whole table in memory.

All of them are sorted by `image_id`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from agetf_pipeline.config.enhance import RecheckConfig
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import ENHANCED, ENHANCED_AGES, IMAGES, LABELS, TableSpec
from agetf_pipeline.data.streaming import Cursor, SortedTable, read_slices
from agetf_pipeline.data.tables import empty_frame
from agetf_pipeline.enhance.guards import GUARDS_VERSION, is_excluded, judge

if TYPE_CHECKING:
    from agetf_pipeline.enhance.identity import IdentityModel

_TOUCHED = (
    pl.col("colourised")
    | pl.col("super_resolved")
    | (pl.col("input_width_px") != pl.col("output_width_px"))
    | (pl.col("input_height_px") != pl.col("output_height_px"))
)
_SLICE_ROWS = 4096
_REPORTED = (
    "flags", "flagged", "excluded", "touched", "colourised", "age_shift_years",
    "identity_similarity", "identity_alignment", "sharpness_ratio", "colourfulness_change",
    "not_compared",
)  # fmt: skip
"""What of every row the report holds; of the others only the flagged ones'."""


def wanted_rows(
    workspace: Workspace, partition: str, model: "IdentityModel | None"
) -> tuple[pl.DataFrame, int]:
    """One row per labelled output: what makes a stored row stale, and where the pictures are.

    Returns:
        The rows, in the order of `image_id`, and how many outputs there are, labelled or not.
    """
    change = pl.col("colourfulness_after") - pl.col("colourfulness_before")
    places = Cursor(_slices(workspace, IMAGES, partition, ["image_id", "face_path"]), "image_id")
    read = ["image_id", "label_version", "age_years", "reason"]
    labels = Cursor(_slices(workspace, LABELS, partition, read), "image_id")
    found, num_enhanced = [], 0
    for rows in _slices(workspace, ENHANCED, partition):
        good = rows.filter(pl.col("status") == "ok")
        num_enhanced += good.height
        last = rows["image_id"][-1]
        label, place = labels.take(last), places.take(last)
        if label is None or place is None:
            continue
        before = label.rename({"age_years": "age_before_years", "reason": "why_no_age"})
        output = good.select(
            "image_id",
            "enhanced_sha256",
            "enhanced_path",
            "colourised",
            touched=_TOUCHED,
            colourfulness_change=change.cast(pl.Float32),
            identity_version=pl.lit(model and model.version, pl.String),
            guards_version=pl.lit(GUARDS_VERSION),
        )
        joined = output.join(before, on="image_id", maintain_order="left")
        found.append(joined.join(place, on="image_id", maintain_order="left"))
    return (pl.concat(found) if found else _nothing_wanted()), num_enhanced


def _nothing_wanted() -> pl.DataFrame:
    texts = ("image_id", "enhanced_sha256", "enhanced_path", "identity_version", "guards_version",
             "label_version", "why_no_age", "face_path")  # fmt: skip
    schema: dict[str, type[pl.DataType]] = dict.fromkeys(texts, pl.String)
    schema |= {"colourised": pl.Boolean, "touched": pl.Boolean}
    return pl.DataFrame(
        schema=schema | {"colourfulness_change": pl.Float32, "age_before_years": pl.Float32}
    )


def rows_of(table: SortedTable | None, some: pl.DataFrame, spec: TableSpec) -> pl.DataFrame:
    """Return the rows of a table that have the `image_id` of some rows, read from the file."""
    if table is None or not some.height:
        return empty_frame(spec)
    low, high = some.select(pl.col("image_id").min(), last=pl.col("image_id").max()).row(0)
    found = table.between(low, high)
    if found is None:
        return empty_frame(spec)
    return found.join(some.select("image_id"), on="image_id", how="semi")


def gather(
    limits: RecheckConfig, workspace: Workspace, partition: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read the table for the report.

    Returns:
        What was measured of every row, and with `touched` and `excluded`; everything of the flagged
        rows, with `severity` and where their pictures are.
    """
    outputs = Cursor(_slices(workspace, ENHANCED, partition), "image_id")
    places = Cursor(_slices(workspace, IMAGES, partition, ["image_id", "face_path"]), "image_id")
    measured, flagged = [], []
    for rows in _slices(workspace, ENHANCED_AGES, partition):
        last = rows["image_id"][-1]
        output, place = outputs.take(last), places.take(last)
        assert output is not None
        assert place is not None
        pictures = output.select(
            "image_id", "enhanced_path", "decision", touched=_TOUCHED.fill_null(False)
        ).join(place, on="image_id")
        whole = rows.with_columns(
            judge(rows, limits)["severity"], excluded=is_excluded(limits)
        ).join(pictures, on="image_id", maintain_order="left")
        measured.append(whole.select(_REPORTED).rechunk())
        flagged.append(whole.filter("flagged"))
    if not measured:
        empty = empty_frame(ENHANCED_AGES).with_columns(
            severity=pl.lit(0.0), excluded=pl.lit(False), touched=pl.lit(False),
            decision=pl.lit(""), face_path=pl.lit(""), enhanced_path=pl.lit(""),
        )  # fmt: skip
        return empty.select(_REPORTED), empty
    return pl.concat(measured), pl.concat(flagged)


def _slices(
    workspace: Workspace, spec: TableSpec, partition: str, columns: list[str] | None = None
) -> Iterator[pl.DataFrame]:
    return read_slices(workspace, spec, partition, _SLICE_ROWS, columns)
