"""The mixture's labels for people and other programs: JSON, CSV, and a report per age group."""

import json
from pathlib import Path

import polars as pl

from agetf_pipeline.core.files import write_json, write_text
from agetf_pipeline.data.ages import AGE_GROUPS

_EXPERT_FIELDS = (
    "age_years", "sigma_years", "confidence", "weight", "raw_age_years", "raw_sigma_years",
    "status", "reason",
)  # fmt: skip
_DECIMALS = 4


def export_records(labels: pl.DataFrame, images: pl.DataFrame) -> list[dict]:
    """Return one record an image, sorted by path: what it is, its label, every expert's part.

    Args:
        labels: Rows of table `labels`.
        images: Rows of table `images` of the same images.

    Returns:
        JSON-compatible records; what could not be computed is None.
    """
    about = images.select("image_id", "image_number", "path", "age_group_confidence")
    rows = labels.join(about, on="image_id", how="inner").sort("path")
    records = []
    for row in rows.iter_rows(named=True):
        variance = row["variance_years2"]
        records.append(
            {
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
                "original_age_group": row["original_age_group"],
                "original_age_group_confidence": _rounded(row["age_group_confidence"]),
                "decision": row["decision"],
                "reason": row["reason"],
                "calibrated": row["calibrated"],
                "label_version": row["label_version"],
                "num_experts": row["num_experts"],
                "experts": json.loads(row["experts"]),
            }
        )
    return records


def write_exports(records: list[dict], experts: list[str], json_path: Path, csv_path: Path) -> None:
    """Write the records as JSON, and as CSV with a column per expert and field.

    Args:
        records: From `export_records`.
        experts: Names of the experts, for the CSV's columns.
        json_path: File of the JSON list.
        csv_path: File of the CSV; an empty cell is a null.
    """
    write_json(json_path, records)
    flat = []
    for record in records:
        row = {name: value for name, value in record.items() if name != "experts"}
        for expert in experts:
            part = record["experts"].get(expert, {})
            row |= {f"{expert}_{name}": part.get(name) for name in _EXPERT_FIELDS}
        flat.append(row)
    frame = pl.DataFrame(flat, infer_schema_length=None) if flat else pl.DataFrame()
    write_text(csv_path, frame.write_csv() if flat else ",".join(_csv_header(experts)) + "\n")


def group_report(labels: pl.DataFrame, experts: list[str]) -> pl.DataFrame:
    """Return the report per age group, and over `all`.

    Counts of decisions and the agreement go by the original group; means go by the new one.

    Args:
        labels: Rows of table `labels`.
        experts: Names of the experts, for the columns of mean weights.
    """
    weights = {
        expert: labels["experts"].str.json_path_match(f"$.{expert}.weight").cast(pl.Float64)
        for expert in experts
    }
    table = labels.with_columns(
        sigma_years=pl.col("variance_years2").sqrt(),
        disagreement_years=pl.col("between_variance_years2").sqrt(),
        width_years=pl.col("interval_high_years") - pl.col("interval_low_years"),
        **{f"weight_{expert}": series for expert, series in weights.items()},
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
                    for decision in ("keep", "relabel", "unlabelled", "none")
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
                "mean_expert_disagreement_years": _rounded(after["disagreement_years"].mean()),
                **{
                    f"mean_weight_{expert}": _rounded(after[f"weight_{expert}"].mean())
                    for expert in experts
                },
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _csv_header(experts: list[str]) -> list[str]:
    own = [
        "image_number", "image_id", "path", "age_years", "age_group", "variance_years2",
        "within_variance_years2", "between_variance_years2", "sigma_years", "interval_low_years",
        "interval_high_years", "original_age_group", "original_age_group_confidence", "decision",
        "reason", "calibrated", "label_version", "num_experts",
    ]  # fmt: skip
    return [*own, *(f"{expert}_{name}" for expert in experts for name in _EXPERT_FIELDS)]


def _rounded(value: object) -> float | None:
    return round(float(value), _DECIMALS) if isinstance(value, int | float) else None
