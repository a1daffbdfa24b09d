"""Checks of the files behind a table, or of the networks behind a stage."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import polars as pl

from agetf_pipeline.config.quality import QualityConfig
from agetf_pipeline.core.work import load_report
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import TABLES, TableSpec
from agetf_pipeline.data.streaming import compact, read_slices
from agetf_pipeline.data.tables import table_path
from agetf_pipeline.quality.files import (
    IMAGE_RULES,
    WEIGHTS_RULES,
    look_at_images,
    look_at_weights,
    sample_rows,
)
from agetf_pipeline.quality.records import keep_result
from agetf_pipeline.quality.suites import judge
from agetf_pipeline.quality.verdict import SuiteResult

Pictures = Literal["originals", "faces", "enhanced", "manifest"]
"""Which pictures are looked at: the files as they came, the faces that the stages read, what
enhancement made, what training reads."""

_SLICE = 8192
_NOTHING = pl.lit(None)
_TOLD: dict[Pictures, tuple[str, dict[str, pl.Expr]]] = {
    "originals": (
        "images",
        {"path": pl.col("path"), "told_sha256": pl.col("image_id"),
         "told_width_px": _NOTHING, "told_height_px": _NOTHING},
    ),
    "faces": (
        "images",
        {"path": pl.col("face_path"), "told_sha256": _NOTHING,
         "told_width_px": pl.col("width_px"), "told_height_px": pl.col("height_px")},
    ),
    "enhanced": (
        "enhanced",
        {"path": pl.col("enhanced_path"), "told_sha256": pl.col("enhanced_sha256"),
         "told_width_px": pl.col("output_width_px"), "told_height_px": pl.col("output_height_px")},
    ),
    "manifest": (
        "training_manifest",
        {"path": pl.coalesce("enhanced_path", "face_path"), "told_sha256": _NOTHING,
         "told_width_px": _NOTHING, "told_height_px": _NOTHING},
    ),
}  # fmt: skip


_CORPUS: frozenset[Pictures] = frozenset({"originals", "faces"})
"""Files of the corpus itself. Whoever removes or replaces one of a shard has not run that shard
yet; that is for a person to look at, and no reason to stop the other shards."""


def table_of(pictures: Pictures) -> str:
    """Return the table that names these pictures."""
    return _TOLD[pictures][0]


def check_pictures(
    workspace: Workspace,
    config: QualityConfig,
    pictures: Pictures,
    partitions: Sequence[str],
    name: str,
    may_be_empty: bool = False,
) -> SuiteResult:
    """Open a sample of the pictures that a table names, and judge what is found.

    Args:
        workspace: The workspace.
        config: How many.
        pictures: Which.
        partitions: Of which partitions of the table.
        name: `<asset>/<check>`.
        may_be_empty: Whether having no picture is as it should be.
    """
    table, told = _TOLD[pictures]
    chosen = _Sample(config.num_sampled_images)
    for partition in partitions:
        chosen.add(workspace, TABLES[table], partition, told)
    sample = chosen.rows
    rules = [
        dataclasses.replace(rule, severity="warning") if pictures in _CORPUS else rule
        for rule in IMAGE_RULES
    ]
    found = look_at_images(workspace, sample)
    judged = judge(f"{pictures} on disk", found, rules, may_be_empty)
    result = SuiteResult(
        judged.table, judged.num_rows, judged.verdicts,
        notes=(f"{sample.height} of {chosen.num_seen} pictures were opened.",),
    )  # fmt: skip
    tables = [table_path(workspace, TABLES[table], partition) for partition in partitions]
    pictures_read = [workspace.resolve(path) for path in sample["path"].drop_nulls()]
    keep_result(workspace, name, result, [*tables, *pictures_read])
    return result


class _Sample:
    """Some rows, gathered a slice at a time; see `files.sample_rows`."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self.num_seen = 0
        self.rows = pl.DataFrame(
            schema={"image_id": pl.String, "path": pl.String, "told_sha256": pl.String,
                    "told_width_px": pl.Int32, "told_height_px": pl.Int32}
        )  # fmt: skip

    def add(
        self, workspace: Workspace, spec: TableSpec, partition: str, told: dict[str, pl.Expr]
    ) -> None:
        """Look at a partition."""
        read = {name for expression in told.values() for name in expression.meta.root_names()}
        read |= {"image_id", *({"status"} & set(spec.schema.names))}
        for rows in read_slices(workspace, spec, partition, _SLICE, sorted(read)):
            if "status" in rows.columns:
                rows = rows.filter(pl.col("status") == "ok")
            self.num_seen += rows.height
            its = rows.select(
                "image_id", *(expression.alias(column) for column, expression in told.items())
            )
            its = its.select(self.rows.columns).cast(self.rows.schema)
            self.rows = compact(sample_rows(pl.concat([self.rows, its]), self._num_rows))


def check_networks(
    workspace: Workspace, config: QualityConfig, stage: str, name: str
) -> SuiteResult:
    """Read the weights that a stage left behind, and judge them.

    Args:
        workspace: The workspace.
        config: How much of a file is read.
        stage: The stage whose report names them.
        name: `<asset>/<check>`.
    """
    report = load_report(workspace, stage)
    outputs = [] if report is None else [workspace.resolve(p) for p in report.outputs.values()]
    found = {
        file
        for path in outputs
        for file in (path.rglob("*.safetensors") if path.is_dir() else [path])
        if file.suffix == ".safetensors" and file.is_file()
    }
    files = sorted(found)
    max_bytes = config.max_weights_mib * 2**20
    frame = look_at_weights(files, workspace.root, max_bytes)
    notes = (
        (f"{frame['num_looked_at'].sum()} of {frame['num_parameters'].sum()} weights were read.",)
        if files
        else ("The stage left no weights here: it verified configured ones where they lie.",)
    )
    judged = judge("weights", frame, WEIGHTS_RULES)
    result = SuiteResult("weights", len(files), judged.verdicts, notes=notes)
    keep_result(workspace, name, result, files)
    return result
