"""The variance filter: which images training may use, with every reason against the others.

An image is kept when it has a label, nothing hides the face, and its label is sure enough. Sure
enough means under the thresholds, or among the surest few of its age group in its partition, so
that rare ages do not vanish. That quota is drawn from the whole group whatever the thresholds
are: a looser threshold therefore always keeps a superset. What became of each age group stands in
`stats/filter/<partition>.csv` and `.png`.

Images and labels are read side by side, a slice at a time: once for the quota, once to judge. What
is held is a slice, the surest few of each group, and counts.
"""

from collections.abc import Iterator, Sequence

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.background import map_ahead
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import IMAGES, KEEP_LIST, LABELS
from agetf_pipeline.data.streaming import open_table, read_slices, side_by_side, together
from agetf_pipeline.data.tables import table_hashes, table_path
from agetf_pipeline.moe.keep_report import ALL, Tally, group_report, plot_groups
from agetf_pipeline.moe.keeping import (
    FORGIVEN,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    QUOTA_COLUMNS,
    REASONS,
    Surest,
    judge,
    judge_slice,
    with_labels,
)
from agetf_pipeline.stages.base import StageReport, run_once

__all__ = ["CODE_VERSION", "FORGIVEN", "REASONS", "STAGE", "group_report", "judge", "run"]

STAGE = "filter"
CODE_VERSION = "3"
_SLICE = 8192
_GROUP_ROWS = 16_384
"""Rows of a row group of the keep-list."""


def run(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    """Write the keep-list of one partition.

    Raises:
        StageError: The partition has no labels.
    """
    if not table_path(workspace, LABELS, partition).exists():
        raise StageError(
            f"Expected labels of '{partition}'; found none. Run the stages 'predict' (for this "
            "partition) and 'relabel' first."
        )
    inputs = table_hashes(workspace, LABELS, [partition])
    inputs |= table_hashes(workspace, IMAGES, [partition])
    settings = config.filter.settings() | {
        "corpus_age_variance_years2": config.assemble.corpus_age_variance_years2,
        "synthetic": config.synthesize.enabled,
    }
    return run_once(
        workspace, STAGE, settings, CODE_VERSION, inputs,
        lambda: _filter(config, workspace, partition), partition,
    )  # fmt: skip


def _filter(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    tally = write_keep_list(config, workspace, partition)
    groups = tally.table(config.filter.min_kept_per_group)
    report_csv = workspace.stats / "filter" / f"{partition}.csv"
    plot = report_csv.with_suffix(".png")
    write_text(report_csv, groups.write_csv())
    plot_groups(plot, tally, f"{partition}, synthetic" if config.synthesize.enabled else partition)
    counts = {
        "images": tally.images[ALL],
        "kept": tally.kept[ALL],
        "kept_by_quota": tally.kept_by_quota[ALL],
        **{reason: tally.reasons[ALL, reason] for reason in REASONS},
    }
    path = table_path(workspace, KEEP_LIST, partition)
    return StageReport(
        STAGE,
        partition=partition,
        counts=counts,
        figures={
            "kept_share": counts["kept"] / counts["images"] if counts["images"] else None,
            "effective_images": groups["effective_images"][-1],
        },
        outputs={
            f"keep_list/{partition}": workspace.relative(path),
            "filter_report": workspace.relative(report_csv),
            "filter_plot": workspace.relative(plot),
        },
        messages=tally.messages(config.filter),
    )


def write_keep_list(config: PipelineConfig, workspace: Workspace, partition: str) -> Tally:
    """Judge a partition's images and write the table `keep_list`; return what was counted."""
    corpus_variance = config.assemble.corpus_age_variance_years2
    surest = Surest(config.filter.min_kept_per_group)
    if config.filter.min_kept_per_group:
        for images, labels in _slices(workspace, partition, *QUOTA_COLUMNS):
            surest.add(with_labels(images, labels, corpus_variance))
    by_quota = surest.image_ids()
    tally = Tally()
    path = table_path(workspace, KEEP_LIST, partition)

    def judged() -> Iterator[pl.DataFrame]:
        for images, labels in _slices(workspace, partition, IMAGE_COLUMNS, LABEL_COLUMNS):
            yield judge_slice(images, labels, config.filter, corpus_variance, by_quota)

    with open_table(path, KEEP_LIST) as writer:

        def keep(rows: pl.DataFrame) -> None:
            writer.write(rows.drop("kept_by_quota"))
            tally.add(rows)

        for _ in map_ahead(keep, together(judged(), _GROUP_ROWS), num_ahead=1):
            pass
    return tally


def _slices(
    workspace: Workspace,
    partition: str,
    image_columns: Sequence[str],
    label_columns: Sequence[str],
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame | None]]:
    """Yield slices of a partition's images, each with the labels that go with it."""
    images = read_slices(workspace, IMAGES, partition, _SLICE, list(image_columns))
    labels = read_slices(workspace, LABELS, partition, _SLICE, list(label_columns))
    return side_by_side(images, labels, "image_id")
