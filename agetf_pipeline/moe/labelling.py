"""Labelling whole tables, a slice of images at a time.

What is kept of every image is a few numbers; the rest is on disk before the next slice is read, so
that memory does not grow with the corpus.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from agetf_pipeline.config.relabel import RelabelConfig
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import IMAGES, LABELS, PREDICTIONS
from agetf_pipeline.data.streaming import Cursor, compact, open_table, read_slices
from agetf_pipeline.data.tables import empty_frame, table_path
from agetf_pipeline.moe.calibration import Calibration
from agetf_pipeline.moe.distributions import group_probabilities, mixture_distribution
from agetf_pipeline.moe.export import export_records
from agetf_pipeline.moe.labels import LabelledImages, label_images
from agetf_pipeline.moe.readings import READING_COLUMNS

_KEPT = [
    "image_id", "age_years", "variance_years2", "between_variance_years2", "interval_low_years",
    "interval_high_years", "reliability", "num_experts", "original_age_group", "age_group",
    "decision",
]  # fmt: skip
_IMAGE_COLUMNS = ["image_id", "age_group", "true_age_years"]
_SLICE = 4096
_EXPORT_SLICE = 16_384


class LabelCounts:
    """Counts of labelled images, added up a slice at a time."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.num_images = 0
        self.decisions: Counter[str] = Counter()
        self.labelled: Counter[str] = Counter()
        self.absent: Counter[str] = Counter()

    def add(self, labelled: LabelledImages) -> None:
        """Count a slice: decisions, and by expert the labels made, with it or without it."""
        self.num_images += labelled.rows.height
        self.decisions.update(dict(labelled.rows["decision"].value_counts().iter_rows()))
        for e, name in enumerate(labelled.names):
            weight_N = labelled.mixture.weight_NE[:, e]
            # NaN where there is no label at all, 0 where the others made one.
            self.labelled[name] += int(np.isfinite(weight_N).sum())
            self.absent[name] += int((weight_N.astype(np.float32) == 0).sum())

    def merge(self, other: "LabelCounts") -> None:
        """Add those of other images."""
        self.num_images += other.num_images
        self.decisions += other.decisions
        self.labelled += other.labelled
        self.absent += other.absent


@dataclass(frozen=True)
class LabelledPartition:
    """What is kept of a labelled partition.

    Attributes:
        path: Its table `labels`.
        summary: Per image, sorted by image_id: the labels' numbers and groups, and the weight of
            every expert (`weight_<expert>`, null without a label). Without rows where it is not
            wanted.
        group_NG: float32 (N, 10), the mixture's probability of every age group, in the same order;
            NaN without a label.
        counts: Of all its images.
    """

    path: Path
    summary: pl.DataFrame
    group_NG: np.ndarray
    counts: LabelCounts


def label_partition(
    workspace: Workspace,
    partition: str,
    experts: Sequence[str],
    calibration: Calibration,
    config: RelabelConfig,
    keep_rows: bool = True,
) -> LabelledPartition:
    """Write a partition's table `labels`: a row for each of its images.

    Args:
        workspace: The workspace; the partition has the tables `images` and `predictions`.
        partition: Its name.
        experts: The experts of all partitions.
        calibration: The mixture's parameters.
        config: Thresholds and numbers of experts.
        keep_rows: Whether the summary is wanted; of a shard, the counts are enough.

    Raises:
        DataError: A table cannot be read, or its rows do not go with the calibration.
    """
    path = table_path(workspace, LABELS, partition)
    read = read_slices(workspace, PREDICTIONS, partition, _SLICE, READING_COLUMNS)
    predictions = Cursor(read, "image_id")
    nothing = empty_frame(PREDICTIONS).select(READING_COLUMNS)
    summaries, groups, counts = [], [], LabelCounts()
    with open_table(path, LABELS) as writer:
        for images in read_slices(workspace, IMAGES, partition, _SLICE, _IMAGE_COLUMNS):
            readings = predictions.take(images["image_id"][-1])
            labelled = label_images(
                nothing if readings is None else readings, images, calibration, config, experts
            )
            writer.write(labelled.rows)
            counts.add(labelled)
            if keep_rows:
                summaries.append(compact(_summary(labelled)))
                groups.append(_groups(labelled))
    if not summaries:
        summaries.append(nothing_labelled(experts))
    return LabelledPartition(
        path,
        pl.concat(summaries),
        np.concatenate(groups) if groups else np.empty((0, 10), np.float32),
        counts,
    )


def records_by_path(workspace: Workspace, partition: str) -> Iterator[dict]:
    """Yield the export record of every labelled image of a partition, sorted by path.

    Labels lie in the order of their ids: each slice of paths is gathered from the whole table.
    """
    columns = ["image_id", "image_number", "path", "age_group_confidence"]
    images = pl.concat(
        [
            empty_frame(IMAGES).select(columns),
            *read_slices(workspace, IMAGES, partition, _SLICE, columns),
        ]
    ).sort("path")
    labels = pl.scan_parquet(table_path(workspace, LABELS, partition))
    for some in images.iter_slices(_EXPORT_SLICE):
        found = labels.join(some.lazy().select("image_id"), on="image_id", how="semi").collect()
        yield from export_records(found, some)


def nothing_labelled(experts: Sequence[str]) -> pl.DataFrame:
    """Return the summary of a partition without images."""
    weights = {f"weight_{name}": pl.Series([], dtype=pl.Float32) for name in experts}
    return empty_frame(LABELS).select(_KEPT).with_columns(**weights)


def _summary(labelled: LabelledImages) -> pl.DataFrame:
    weights = {
        f"weight_{name}": pl.Series(
            labelled.mixture.weight_NE[:, e], dtype=pl.Float32, nan_to_null=True
        )
        for e, name in enumerate(labelled.names)
    }
    return labelled.rows.select(_KEPT).with_columns(**weights)


def _groups(labelled: LabelledImages) -> np.ndarray:
    return group_probabilities(
        mixture_distribution(
            labelled.mixture.weight_NE, labelled.age_NE, labelled.sigma_NE, labelled.part_NE
        )
    )
