"""The released tables: what a person may pass on, without a name or a path of anybody's files."""

from pathlib import Path

import polars as pl

from agetf_pipeline.core.files import write_json, write_text
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace, is_caf
from agetf_pipeline.data.schemas import (
    ENHANCED,
    ENHANCED_AGES,
    IMAGES,
    KEEP_LIST,
    LABELS,
    TRAINING_MANIFEST,
)
from agetf_pipeline.data.tables import list_partitions, read_table, table_path, write_parquet
from agetf_pipeline.release.redaction import (
    anonymous,
    experts_without_messages,
    reason_of_failure,
    reason_of_label,
)

IMAGES_FOLDER = "images"


def _table(workspace: Workspace, spec, wanted: list[str]) -> pl.DataFrame:
    """Read those of the wanted partitions that exist."""
    return read_table(
        workspace, spec, [p for p in wanted if table_path(workspace, spec, p).exists()]
    )


def ffhq_rows(workspace: Workspace) -> pl.DataFrame:
    """Return the labels of FFHQ-Aging, by image number, with what the filter decided.

    File names stay out, and messages with them: in a person's own collection they may name
    somebody.
    """
    wanted = [FFHQ_PARTITION]
    keep = _table(workspace, KEEP_LIST, wanted).select("image_id", "keep", "reasons")
    labels = _table(workspace, LABELS, wanted)
    reasons = [reason_of_label(*row) for row in labels.select("reason", "decision").iter_rows()]
    experts = [experts_without_messages(text) for text in labels["experts"]]
    return (
        labels.with_columns(
            reason=pl.Series(reasons, dtype=pl.String), experts=pl.Series(experts, dtype=pl.String)
        )
        .join(
            _table(workspace, IMAGES, wanted).select("image_id", "image_number"),
            on="image_id",
        )
        .join(keep, on="image_id", how="left")
        .rename({"reasons": "filter_reasons", "keep": "filter_keep"})
        .select("image_number", pl.exclude("image_number"))
        .sort("image_number", "image_id", nulls_last=True)
    )


def caf_rows(workspace: Workspace, splits: pl.DataFrame, with_images: bool) -> pl.DataFrame:
    """Return what enhancement did to each CAF image, the ages before and after, and its split.

    Args:
        workspace: The workspace.
        splits: From `split_rows`.
        with_images: Whether the release holds the enhanced images; `enhanced_path` is then where
            in it, and otherwise absent.
    """
    caf = [name for name in list_partitions(workspace, ENHANCED) if is_caf(name)]
    partitions = _table(workspace, IMAGES, caf).select("image_id", "partition")
    ages = _table(workspace, ENHANCED_AGES, caf).select(
        "image_id", "age_before_years", "age_after_years", "age_shift_years",
        flagged=pl.col("flags").list.contains("age"),
    )  # fmt: skip
    enhanced = _table(workspace, ENHANCED, caf).drop("sidecar_path")
    reasons = [reason_of_failure(reason) for reason in enhanced["reason"]]
    enhanced = enhanced.with_columns(reason=pl.Series(reasons, dtype=pl.String))
    if with_images:
        # <shard>/<image_id>.png, wherever the workspace keeps them.
        shown = pl.col("enhanced_path").str.split("/").list.tail(2).list.join("/")
        enhanced = enhanced.with_columns(enhanced_path=pl.lit(f"{IMAGES_FOLDER}/") + shown)
    else:
        enhanced = enhanced.drop("enhanced_path")
    return (
        enhanced.join(partitions, on="image_id", how="left")
        .join(ages, on="image_id", how="left")
        .join(splits.select("image_id", "identity", "split"), on="image_id", how="left")
        .sort("image_id")
    )


def split_rows(workspace: Workspace, key: bytes) -> pl.DataFrame:
    """Return the split of each image; persons are hashed with `key`, so that no name leaves."""
    manifest = read_table(workspace, TRAINING_MANIFEST)
    persons = [anonymous(identity, key) for identity in manifest["identity"]]
    return (
        manifest.with_columns(identity=pl.Series(persons, dtype=pl.String))
        .select(
            "image_id", "partition", "identity", "split", "age_years", "age_group", "label_source"
        )
        .sort("image_id")
    )


def enhanced_images(workspace: Workspace) -> dict[str, Path]:
    """Return the enhanced CAF images: their path in a release, and the file."""
    caf = [name for name in list_partitions(workspace, ENHANCED) if is_caf(name)]
    paths = _table(workspace, ENHANCED, caf)["enhanced_path"].drop_nulls().sort()
    return {
        f"{IMAGES_FOLDER}/{'/'.join(path.split('/')[-2:])}": workspace.resolve(path)
        for path in paths
    }


def write_frame(folder: Path, name: str, frame: pl.DataFrame, formats: tuple[str, ...]) -> None:
    """Write a table as Parquet, and as CSV and JSON for people."""
    folder.mkdir(parents=True, exist_ok=True)
    if "parquet" in formats:
        write_parquet(folder / f"{name}.parquet", frame.to_arrow())
    # Text carries what a person reads: eight digits of a float32 are noise.
    rounded = frame.with_columns(pl.selectors.float().cast(pl.Float64).round(4))
    if "json" in formats:
        write_json(folder / f"{name}.json", rounded.to_dicts())
    if "csv" in formats:
        lists = [column for column, kind in frame.schema.items() if kind == pl.List(pl.String)]
        flat = rounded.with_columns(pl.col(lists).list.join("|")) if lists else rounded
        write_text(folder / f"{name}.csv", flat.write_csv())


def statistics_of(ffhq: pl.DataFrame, caf: pl.DataFrame, splits: pl.DataFrame) -> dict:
    """Return the counts of a release, JSON-compatible."""
    return {
        "ffhq_aging": {
            "num_images": ffhq.height,
            "num_labelled": ffhq["age_years"].count(),
            "by_decision": _counts(ffhq, "decision"),
            "by_age_group": _counts(ffhq, "age_group"),
        },
        "caf_enhanced": {
            "num_images": caf.height,
            "by_status": _counts(caf, "status"),
            "num_colourised": int(caf["colourised"].sum() or 0),
            "num_super_resolved": int(caf["super_resolved"].sum() or 0),
            "num_age_shift_flagged": int(caf["flagged"].sum() or 0),
        },
        "splits": {
            "num_images": splits.height,
            "num_identities": splits["identity"].n_unique(),
            "by_split": _counts(splits, "split"),
        },
    }


def _counts(frame: pl.DataFrame, column: str) -> dict[str, int]:
    counted = frame[column].drop_nulls().value_counts()
    return {str(key): int(count) for key, count in counted.sort(column).rows()}
