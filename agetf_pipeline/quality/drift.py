"""Label drift: these labels beside the last accepted ones.

Accepted are the labels of the last run in which none of the table's critical expectations failed.
What is kept of them is small: of each image the first half of its id and its age, and what the
comparison with the labels before them gave, so that checking the same labels again says the same.
"""

import math
from pathlib import Path
from typing import Any

import polars as pl

from agetf_pipeline.config.quality import QualityConfig
from agetf_pipeline.core.files import atomic_path, read_json, write_json
from agetf_pipeline.core.hashing import fingerprint
from agetf_pipeline.core.statistics import emd_years
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import LABELS
from agetf_pipeline.data.streaming import compact, read_slices
from agetf_pipeline.data.tables import empty_frame, list_partitions, table_hashes, table_path
from agetf_pipeline.quality.records import keep_result
from agetf_pipeline.quality.verdict import SuiteResult, Verdict, statement

_ID_CHARACTERS = 32
_MAX_EXAMPLES = 5
_SLICE = 8192


def check_label_drift(
    workspace: Workspace, config: QualityConfig, name: str, acceptable: bool
) -> SuiteResult:
    """Compare the labels with the last accepted ones, and accept them where they may be.

    Args:
        workspace: The workspace.
        config: The margins.
        name: `<asset>/<check>`.
        acceptable: Whether the labels' critical expectations hold.
    """
    hashes = table_hashes(workspace, LABELS)
    labels = _ages(workspace)
    accepted = _accepted(workspace)
    if accepted is not None and accepted["tables"] == hashes:
        compared = accepted["compared"]
    else:
        before = None if accepted is None else pl.read_parquet(workspace.resolve(accepted["ages"]))
        compared = _compare(labels, before, config.moved_years)
        if acceptable:
            _accept(workspace, labels, hashes, compared)
    result = _judge(compared, labels.height, config, acceptable)
    files = [table_path(workspace, LABELS, p) for p in list_partitions(workspace, LABELS)]
    keep_result(workspace, name, result, files)
    return result


def _ages(workspace: Workspace) -> pl.DataFrame:
    """Return half the id and the age of every image: all that is held of them."""
    columns = ["image_id", "age_years"]
    slices = (
        compact(rows.with_columns(pl.col("image_id").str.head(_ID_CHARACTERS)))
        for partition in list_partitions(workspace, LABELS)
        for rows in read_slices(workspace, LABELS, partition, _SLICE, columns)
    )
    return pl.concat([empty_frame(LABELS).select(columns), *slices])


def _compare(labels: pl.DataFrame, before: pl.DataFrame | None, moved_years: float) -> dict:
    """Return the figures of a comparison; nulls where there is nothing to compare with."""
    if before is None:
        return {"first": True, "emd_years": None, "num_common": 0, "num_moved": 0, "moved": []}
    now, then = labels.drop_nulls("age_years"), before.drop_nulls("age_years")
    both = now.join(then, on="image_id", suffix="_before")
    moved = (
        both.with_columns((pl.col("age_years") - pl.col("age_years_before")).alias("change_years"))
        .filter(pl.col("change_years").abs() > moved_years)
        .sort(pl.col("change_years").abs(), "image_id", descending=[True, False])
    )
    distance = emd_years(now["age_years"].to_numpy(), then["age_years"].to_numpy())
    return {
        "first": False,
        "emd_years": None if math.isnan(distance) else distance,
        "num_common": both.height,
        "num_moved": moved.height,
        "mean_change_years": both.select(
            (pl.col("age_years") - pl.col("age_years_before")).mean()
        ).item(),
        "moved": [
            {key: value if isinstance(value, str) else f"{value:.1f}" for key, value in row.items()}
            for row in moved.head(_MAX_EXAMPLES).to_dicts()
        ],
    }


def _judge(
    compared: dict[str, Any], num_rows: int, config: QualityConfig, acceptable: bool
) -> SuiteResult:
    notes = [] if acceptable else ["These labels are not accepted: a critical expectation fails."]
    if compared["first"]:
        notes.append("There were no accepted labels before: there is nothing to compare with.")
        return SuiteResult("labels", num_rows, (), notes=tuple(notes))
    distance, num_common = compared["emd_years"], compared["num_common"]
    share = compared["num_moved"] / num_common if num_common else None
    near = distance is None or distance <= config.max_label_drift_years
    still = share is None or share <= config.max_moved_fraction
    verdicts = (
        statement(
            "distribution_kept",
            f"The distribution of ages is within {config.max_label_drift_years:g} years of the "
            "last accepted one (earth mover's distance)",
            near,
            "not compared: one of them has no ages"
            if distance is None
            else f"{distance:.3f} years",
        ),
        Verdict(
            "labels_kept",
            f"Labels have not moved by more than {config.moved_years:g} years",
            "warning",
            still,
            num_common,
            compared["num_moved"],
            config.max_moved_fraction,
            [row["image_id"] for row in compared["moved"]],
            compared["moved"],
            f"{compared['num_moved']} of {num_common} images that had a label before",
        ),
    )
    figures = {"emd_years": distance, "moved_share": share,
               "mean_change_years": compared["mean_change_years"]}  # fmt: skip
    return SuiteResult("labels", num_rows, verdicts, figures, tuple(notes))


def _summary_path(workspace: Workspace) -> Path:
    return workspace.stats / "accepted" / "labels.json"


def _accepted(workspace: Workspace) -> dict[str, Any] | None:
    path = _summary_path(workspace)
    summary = read_json(path) if path.is_file() else None
    return summary if summary and workspace.resolve(summary["ages"]).is_file() else None


def _accept(
    workspace: Workspace, labels: pl.DataFrame, hashes: dict[str, str], compared: dict[str, Any]
) -> None:
    """Keep the ages and what they were compared with; cut off at any point, one of both counts."""
    summary_path = _summary_path(workspace)
    ages_path = summary_path.with_name(f"labels-{fingerprint({}, '', hashes)[:16]}.parquet")
    with atomic_path(ages_path) as temporary:
        labels.sort("image_id").write_parquet(temporary, compression="zstd")
    summary = {"ages": workspace.relative(ages_path), "tables": hashes,
               "num_images": labels.height, "compared": compared}  # fmt: skip
    write_json(summary_path, summary)
    for older in summary_path.parent.glob("labels-*.parquet"):
        if older != ages_path:
            older.unlink()
