"""The mixture's labels for people and other programs: JSON, CSV, and a report per age group."""

import csv
import json
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.data.schemas import LABEL_DECISIONS

_EXPERT_FIELDS = (
    "age_years", "sigma_years", "confidence", "weight", "raw_age_years", "raw_sigma_years",
    "status", "reason",
)  # fmt: skip
_OWN = (
    "image_number", "image_id", "path", "age_years", "age_group", "variance_years2",
    "within_variance_years2", "between_variance_years2", "sigma_years", "interval_low_years",
    "interval_high_years", "reliability", "original_age_group", "original_age_group_confidence",
    "decision", "reason", "calibrated", "label_version", "num_experts",
)  # fmt: skip
_DECIMALS = 4


def export_records(labels: pl.DataFrame, images: pl.DataFrame) -> Iterator[dict]:
    """Yield one record an image, sorted by path: what it is, its label, every expert's part.

    Args:
        labels: Rows of table `labels`.
        images: Rows of table `images` of the same images.

    Yields:
        JSON-compatible records; what could not be computed is None.
    """
    about = images.select("image_id", "image_number", "path", "age_group_confidence")
    rows = labels.join(about, on="image_id", how="inner").sort("path")
    for row in rows.iter_rows(named=True):
        variance = row["variance_years2"]
        yield {
            "image_number": row["image_number"],
            "image_id": row["image_id"],
            "path": row["path"],
            "age_years": _rounded(row["age_years"]),
            "age_group": row["age_group"],
            "variance_years2": _rounded(variance),
            "within_variance_years2": _rounded(row["within_variance_years2"]),
            "between_variance_years2": _rounded(row["between_variance_years2"]),
            "sigma_years": None if variance is None else _rounded(variance**0.5),
            "interval_low_years": _rounded(row["interval_low_years"]),
            "interval_high_years": _rounded(row["interval_high_years"]),
            "reliability": _rounded(row["reliability"]),
            "original_age_group": row["original_age_group"],
            "original_age_group_confidence": _rounded(row["age_group_confidence"]),
            "decision": row["decision"],
            "reason": row["reason"],
            "calibrated": row["calibrated"],
            "label_version": row["label_version"],
            "num_experts": row["num_experts"],
            "experts": json.loads(row["experts"]),
        }


def write_exports(
    records: Iterable[dict], experts: list[str], json_path: Path, csv_path: Path
) -> None:
    """Write the records as JSON, and as CSV with a column per expert and field.

    Each record is written as it comes: memory does not grow with their number.

    Args:
        records: From `export_records`.
        experts: Names of the experts, for the CSV's columns.
        json_path: File of the JSON list.
        csv_path: File of the CSV; an empty cell is a null.
    """
    columns = [*_OWN, *(f"{expert}_{name}" for expert in experts for name in _EXPERT_FIELDS)]
    with (
        atomic_path(json_path) as json_temporary,
        atomic_path(csv_path) as csv_temporary,
        json_temporary.open("w", encoding="utf-8") as json_file,
        csv_temporary.open("w", encoding="utf-8", newline="") as csv_file,
    ):
        table = csv.writer(csv_file, lineterminator="\n")
        table.writerow(columns)
        separator = "[\n"
        for record in records:
            text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False)
            json_file.write(separator + textwrap.indent(text, "  "))
            separator = ",\n"
            row = [record[name] for name in _OWN]
            for expert in experts:
                part = record["experts"].get(expert, {})
                row += [part.get(name) for name in _EXPERT_FIELDS]
            table.writerow([_cell(value) for value in row])
        json_file.write("[]\n" if separator == "[\n" else "\n]\n")


def group_report(labels: pl.DataFrame, experts: list[str]) -> pl.DataFrame:
    """Return the report per age group, and over `all`.

    Counts of decisions and the agreement go by the original group; means go by the new one.

    Args:
        labels: Rows with the columns of table `labels` that are numbers or groups, and the weight
            of every expert, `weight_<expert>`.
        experts: Names of the experts, for the columns of mean weights.
    """
    table = labels.with_columns(
        sigma_years=pl.col("variance_years2").sqrt(),
        disagreement_years=pl.col("between_variance_years2").sqrt(),
        width_years=pl.col("interval_high_years") - pl.col("interval_low_years"),
    )
    rows = []
    for group in (*AGE_GROUPS, "all"):
        every = group == "all"
        before = table if every else table.filter(pl.col("original_age_group") == group)
        after = table if every else table.filter(pl.col("age_group") == group)
        compared = before.filter(
            pl.col("original_age_group").is_not_null() & pl.col("age_group").is_not_null()
        )
        same = (compared["original_age_group"] == compared["age_group"]).mean()
        rows.append(
            {
                "age_group": group,
                "num_images_before": before["original_age_group"].count(),
                "num_images_after": after["age_group"].count(),
                **{
                    f"num_{decision}": int((before["decision"] == decision).sum())
                    for decision in LABEL_DECISIONS
                },
                "num_moved_in": int(
                    (
                        (after["decision"] == "relabel")
                        & (after["original_age_group"] != after["age_group"])
                    ).sum()
                ),
                "share_same_group": _rounded(same),
                "mean_age_years": _rounded(after["age_years"].mean()),
                "mean_sigma_years": _rounded(after["sigma_years"].mean()),
                "mean_interval_width_years": _rounded(after["width_years"].mean()),
                "mean_reliability": _rounded(after["reliability"].mean()),
                "mean_expert_disagreement_years": _rounded(after["disagreement_years"].mean()),
                **{
                    f"mean_weight_{expert}": _rounded(after[f"weight_{expert}"].mean())
                    for expert in experts
                },
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _cell(value: object) -> object:
    """Spell a value as Polars and other readers of CSV do: true and false in small letters."""
    return str(value).lower() if isinstance(value, bool) else value


def _rounded(value: object) -> float | None:
    return round(float(value), _DECIMALS) if isinstance(value, int | float) else None
