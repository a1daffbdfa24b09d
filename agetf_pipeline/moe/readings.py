"""What the mixture reads of the tables, a slice at a time: predictions without distributions."""

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import IMAGES, PREDICTIONS
from agetf_pipeline.data.splits import identity_of, split_of
from agetf_pipeline.data.streaming import read_slices
from agetf_pipeline.data.tables import empty_frame
from agetf_pipeline.moe.expert_matrix import expert_matrix
from agetf_pipeline.moe.fitting import CalibrationData

CALIBRATION_SPLIT = "calibration"
READING_COLUMNS = [
    "image_id", "expert", "model_version", "status", "reason", "age_years", "sigma_years",
]  # fmt: skip
"""Of the predictions, what the mixture reads: the distributions are by far the widest column."""
_SLICE = 4096


def read_readings(workspace: Workspace, partition: str) -> Iterator[pl.DataFrame]:
    """Yield what the mixture reads of a partition's predictions, a slice at a time."""
    yield from read_slices(workspace, PREDICTIONS, partition, _SLICE, READING_COLUMNS)


def expert_versions(workspace: Workspace, partitions: list[str]) -> dict[str, str]:
    """Return the version of every expert by its name, sorted.

    Raises:
        DataError: Predictions of an expert come from several versions; a calibration holds for one.
    """
    found = pl.concat(
        frame.select("expert", "model_version", partition=pl.lit(partition)).unique()
        for partition in partitions
        for frame in [empty_frame(PREDICTIONS), *read_readings(workspace, partition)]
    ).unique()
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
    """Return labelled CAF subjects that trained no expert, with `identity`, by `image_id`."""
    seed, fractions = config.train_experts.split_seed, config.train_experts.split_fractions
    columns = ["image_id", "partition", "subject", "true_age_years"]
    known = pl.concat(
        rows.filter(pl.col("true_age_years").is_finite() & pl.col("subject").is_not_null())
        for name in partitions
        for rows in [
            empty_frame(IMAGES).select(columns),
            *read_slices(workspace, IMAGES, name, _SLICE, columns),
        ]
    ).unique("image_id", keep="first", maintain_order=True)
    identities = [
        identity_of(*row) for row in known.select("partition", "image_id", "subject").iter_rows()
    ]
    chosen = [split_of(name, fractions, seed) == CALIBRATION_SPLIT for name in identities]
    return known.with_columns(identity=pl.Series(identities, dtype=pl.String)).filter(
        pl.Series(chosen, dtype=pl.Boolean)
    ).sort("image_id")  # fmt: skip


def calibration_data(
    config: PipelineConfig,
    workspace: Workspace,
    partitions: list[str],
    versions: Mapping[str, str],
) -> CalibrationData:
    """Return what the experts read of labelled CAF subjects that trained none of them.

    Args:
        config: Says how subjects are split.
        workspace: The workspace.
        partitions: Those with predictions.
        versions: From `expert_versions`.
    """
    rows = calibration_images(config, workspace, partitions)
    ids = rows.select("image_id")
    readings = pl.concat(
        frame.join(ids, on="image_id", how="semi")
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
