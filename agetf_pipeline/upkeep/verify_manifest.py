"""The training manifest against the tables that it was made of."""

import polars as pl

from agetf_pipeline.data.schemas import ENHANCED, IMAGES, KEEP_LIST, TRAINING_MANIFEST
from agetf_pipeline.data.tables import ALL_PARTITIONS
from agetf_pipeline.upkeep.verify_survey import Survey

_COLUMNS = ["image_id", "partition", "split", "identity", "face_path", "enhanced_path"]


def verify_manifest(survey: Survey, partitions: list[str]) -> None:
    """Check that it holds the kept images alone, all of them, with their own files and splits.

    Args:
        survey: The verification.
        partitions: Those that are looked at.
    """
    rows = survey.rows(TRAINING_MANIFEST, ALL_PARTITIONS, _COLUMNS)
    where = survey.path_of(TRAINING_MANIFEST, ALL_PARTITIONS)
    if rows is None:
        if not where.exists() and any(survey.has(KEEP_LIST, p) for p in partitions):
            expected = "the training manifest"
            survey.add("links/not_run", where, expected, "nothing", stage="assemble")
        return
    survey.count("links", rows=rows.height)
    several = rows.group_by("identity").agg(pl.col("split").unique().sort())
    several = several.filter(pl.col("split").list.len() > 1).sort("identity")
    for identity, splits in several.iter_rows():
        found = ", ".join(splits)
        survey.add("links/identity_in_two_splits", where, f"{identity} in one split", found)
    unknown = set(rows["partition"].unique().to_list()) - set(partitions)
    for partition in sorted(filter(survey.wants, unknown)):
        survey.add("links/gone_partition", where, f"a partition {partition}", "none")
    everywhere = rows.select("image_id")
    for partition in partitions:
        its = rows.filter(pl.col("partition") == partition)
        _verify_kept(survey, partition, its, everywhere)
        _verify_paths(survey, partition, its)


def _verify_kept(
    survey: Survey, partition: str, its: pl.DataFrame, everywhere: pl.DataFrame
) -> None:
    where = survey.path_of(TRAINING_MANIFEST, ALL_PARTITIONS)
    keep_list = survey.rows(KEEP_LIST, partition, ["image_id", "keep"])
    if keep_list is None:
        if its.height and not survey.is_unreadable(survey.path_of(KEEP_LIST, partition)):
            survey.add("links/not_kept", where, f"a keep-list of {partition}", "none")
        return
    kept = keep_list.filter(pl.col("keep")).select("image_id")
    for image_id in sorted(its.join(kept, on="image_id", how="anti")["image_id"].to_list()):
        survey.add("links/not_kept", where, "a kept image", "one that is not", image_id)
    # An image of two partitions is used once, under one of them.
    missing = kept.join(everywhere, on="image_id", how="anti")["image_id"].to_list()
    if missing and not its.height:
        expected = f"{len(missing)} kept image(s) of {partition}"
        survey.add("links/not_assembled", where, expected, "none")
        return
    for image_id in sorted(missing):
        survey.add("links/gap", where, "a row", "none", image_id, "assemble")


def _verify_paths(survey: Survey, partition: str, its: pl.DataFrame) -> None:
    """The face and the enhanced copy of each row are those of its image."""
    images = survey.rows(IMAGES, partition, ["image_id", "face_path"])
    if images is None or not its.height:
        return
    where = survey.path_of(TRAINING_MANIFEST, ALL_PARTITIONS)
    made = survey.rows(ENHANCED, partition, ["image_id", "status", "enhanced_path"])
    copies = pl.DataFrame(schema={"image_id": pl.String, "enhanced_path": pl.String})
    if made is not None:
        copies = made.filter(pl.col("status") == "ok").select("image_id", "enhanced_path")
    damaged = survey.is_unreadable(survey.path_of(ENHANCED, partition))
    known = images.join(copies, on="image_id", how="left")
    both = its.join(known, on="image_id", how="left", suffix="_known")
    for row in both.iter_rows(named=True):
        names = [("face_path", row["face_path_known"])]
        if row["enhanced_path"] is not None and not damaged:
            names.append(("enhanced_path", row["enhanced_path_known"]))
        for column, expected in names:
            if row[column] != expected:
                survey.add("links/manifest_path", where, f"{column} {expected or 'of an image'}",
                           str(row[column]), row["image_id"])  # fmt: skip
