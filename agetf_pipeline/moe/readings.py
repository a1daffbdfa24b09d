"""What the mixture reads of the tables, a slice at a time: predictions without distributions."""

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_bytes
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import IMAGES, PREDICTIONS
from agetf_pipeline.data.splits import identity_of, split_of
from agetf_pipeline.data.streaming import compact, read_slices
from agetf_pipeline.data.tables import empty_frame
from agetf_pipeline.moe.expert_matrix import expert_matrix
from agetf_pipeline.moe.fitting import CalibrationData

CALIBRATION_SPLIT = "calibration"
READING_COLUMNS = [
    "image_id", "expert", "model_version", "status", "reason", "age_years", "sigma_years",
]  # fmt: skip
"""Of the predictions, what the mixture reads: the distributions are by far the widest column."""
_SUBJECT_COLUMNS = ["image_id", "partition", "subject", "true_age_years"]
_SLICE = 4096


def read_readings(workspace: Workspace, partition: str) -> Iterator[pl.DataFrame]:
    """Yield what the mixture reads of a partition's predictions, a slice at a time."""
    yield from read_slices(workspace, PREDICTIONS, partition, _SLICE, READING_COLUMNS)


def expert_versions(workspace: Workspace, partitions: list[str]) -> dict[str, str]:
    """Return the version of every expert by its name, sorted.

    Raises:
        DataError: Predictions of an expert come from several versions; a calibration holds for one.
    """
    seen: set[tuple[str, str, str]] = set()
    columns = ["expert", "model_version"]
    for partition in partitions:
        for rows in read_slices(workspace, PREDICTIONS, partition, _SLICE, columns):
            seen |= {(*row, partition) for row in rows.unique().iter_rows()}
    schema = dict.fromkeys([*columns, "partition"], pl.String)
    found = pl.DataFrame(sorted(seen), schema=schema, orient="row")
    several = found.group_by("expert").agg(pl.col("model_version").n_unique())
    mixed = several.filter(pl.col("model_version") > 1)["expert"].to_list()
    if mixed:
        rows = found.filter(pl.col("expert").is_in(mixed)).sort(pl.all())
        listed = "; ".join(f"{row[0]} {row[1]} in {row[2]}" for row in rows.iter_rows())
        raise DataError(
            f"Expected predictions of one version of each expert; found {listed}. Run the stage "
            "'predict' for the partitions that are behind."
        )
    return dict(found.select("expert", "model_version").unique().sort("expert").iter_rows())


def calibration_images(
    config: PipelineConfig, workspace: Workspace, partitions: list[str]
) -> pl.DataFrame:
    """Return labelled CAF subjects that trained no expert, with `identity`, by `image_id`.

    Of more than `relabel.max_calibration_images`, the subjects whose names have the least hashes
    are taken, whole: others that come or go later do not change how these are ordered.
    """
    limit = config.relabel.max_calibration_images
    held = _candidates(config, empty_frame(IMAGES).select(_SUBJECT_COLUMNS))
    for name in partitions:
        for rows in read_slices(workspace, IMAGES, name, _SLICE, _SUBJECT_COLUMNS):
            held = pl.concat([held, compact(_candidates(config, rows))])
            if held.height > 2 * limit:
                held = compact(_at_most(held, limit))
    chosen = _at_most(held, limit).drop("place")
    if len(partitions) > 1:
        chosen = _without_other_subjects(workspace, partitions, chosen)
    return chosen.sort("image_id")


def _candidates(config: PipelineConfig, images: pl.DataFrame) -> pl.DataFrame:
    """Return images of subjects of the calibration's split, with `identity` and its `place`."""
    seed, fractions = config.train_experts.split_seed, config.train_experts.split_fractions
    known = images.filter(pl.col("true_age_years").is_finite() & pl.col("subject").is_not_null())
    names = {name: identity_of("", "", name) for name in known["subject"].unique()}
    chosen = {
        name: identity
        for name, identity in names.items()
        if split_of(identity, fractions, seed) == CALIBRATION_SPLIT
    }
    who = pl.DataFrame(
        {
            "subject": list(chosen),
            "identity": list(chosen.values()),
            "place": [hash_bytes(identity.encode())[:16] for identity in chosen.values()],
        },
        schema=dict.fromkeys(["subject", "identity", "place"], pl.String),
    )
    return known.join(who, on="subject", how="inner", maintain_order="left")


def _at_most(candidates: pl.DataFrame, limit: int) -> pl.DataFrame:
    """Return the images of the first subjects by place, whole, `limit` in all; at least one's."""
    once = candidates.unique("image_id", keep="first", maintain_order=True)
    if once.height <= limit:
        return once
    sizes = once.group_by("place", "identity").len().sort("place", "identity")
    taken = sizes.filter((pl.col("len").cum_sum() <= limit) | (pl.int_range(pl.len()) == 0))
    return once.join(taken.select("identity"), on="identity", how="semi", maintain_order="left")


def _without_other_subjects(
    workspace: Workspace, partitions: list[str], chosen: pl.DataFrame
) -> pl.DataFrame:
    """Leave out images that a partition before gives to another subject: it may have trained."""
    first = pl.concat(
        compact(rows.join(chosen, on="image_id", how="semi"))
        for name in partitions
        for rows in [
            empty_frame(IMAGES).select(_SUBJECT_COLUMNS),
            *read_slices(workspace, IMAGES, name, _SLICE, _SUBJECT_COLUMNS),
        ]
    )
    first = first.filter(pl.col("true_age_years").is_finite() & pl.col("subject").is_not_null())
    first = first.unique("image_id", keep="first", maintain_order=True)
    return chosen.join(first, on=["image_id", "subject"], how="semi", maintain_order="left")


def calibration_data(
    workspace: Workspace,
    partitions: list[str],
    versions: Mapping[str, str],
    rows: pl.DataFrame,
) -> CalibrationData:
    """Return what the experts read of labelled CAF subjects that trained none of them.

    Args:
        workspace: The workspace.
        partitions: Those with predictions.
        versions: From `expert_versions`.
        rows: From `calibration_images`.
    """
    ids = rows.select("image_id")
    readings = pl.concat(
        compact(frame.join(ids, on="image_id", how="semi"))
        for name in partitions
        for frame in [
            empty_frame(PREDICTIONS).select(READING_COLUMNS),
            *read_readings(workspace, name),
        ]
    ).unique(["image_id", "expert"], keep="first", maintain_order=True)
    matrix = expert_matrix(readings, rows["image_id"].to_list(), list(versions))
    return CalibrationData(
        matrix.names,
        [versions[name] for name in matrix.names],
        matrix.age_NE,
        matrix.sigma_NE,
        matrix.ok_NE,
        rows["true_age_years"].to_numpy().astype(np.float64),
        rows["identity"].to_numpy(),
    )
