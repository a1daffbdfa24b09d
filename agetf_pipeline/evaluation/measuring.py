"""What a run's measurements found; and those of labels and enhancement, from the tables."""

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from agetf_pipeline.core.statistics import Measure, Sampling
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace, is_caf
from agetf_pipeline.data.schemas import ENHANCED, IMAGES, LABELS, PREDICTIONS
from agetf_pipeline.data.tables import list_partitions, read_table
from agetf_pipeline.evaluation import enhancement, labels, plots
from agetf_pipeline.evaluation.panel import Panel
from agetf_pipeline.evaluation.report import Picture


@dataclass
class Findings:
    """What a run's measurements found, gathered step by step.

    Attributes:
        folder: The run folder, where pictures are written.
        sampling: How intervals are made.
        measures: Every figure by name.
        pictures: Every picture by name.
        per_image: Rows of per_image.parquet, a frame per kind.
        label_versions: Versions of the labels that were measured.
    """

    folder: Path
    sampling: Sampling
    measures: dict[str, Measure] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    per_image: list[pl.DataFrame] = field(default_factory=list)
    label_versions: list[str] = field(default_factory=list)

    def draw(self, name: str, file: str, caption: str) -> Path:
        """Enter a picture; return the file to draw it to."""
        words = "Synthetic faces. " if self.sampling.synthetic else ""
        self.pictures[name] = Picture(file, f"{words}{caption}")
        return self.folder / file


def add_labels(findings: Findings, workspace: Workspace, truth: pl.DataFrame | None) -> None:
    """Measure the labels of FFHQ-Aging against the truth."""
    sampling = findings.sampling
    wanted = [FFHQ_PARTITION]
    if truth is None or FFHQ_PARTITION not in list_partitions(workspace, LABELS):
        reason = labels.NO_TRUTH if truth is None else "there are no labels of FFHQ-Aging"
        findings.measures |= labels.missing_labels(reason, sampling)
        return
    table = read_table(workspace, LABELS, wanted)
    findings.label_versions = sorted(table["label_version"].unique())
    joined = labels.join_labels(
        read_table(workspace, IMAGES, wanted),
        table,
        read_table(workspace, PREDICTIONS, wanted),
        truth,
    )
    findings.measures |= labels.measure_labels(joined, sampling)
    findings.per_image.append(labels.per_image_rows(joined))
    if joined.height:
        path = findings.draw("labels", "label_errors.png", "Error of each way to label, MAE.")
        plots.plot_label_errors(path, findings.measures, joined)
        path = findings.draw("histogram", "age_histograms.png", "Ages: truth and labels.")
        plots.plot_age_histograms(path, joined, sampling.synthetic)


def add_enhancement(
    findings: Findings, workspace: Workspace, truth: pl.DataFrame | None, panel: Panel
) -> None:
    """Measure enhanced images against their clean originals."""
    partitions = [name for name in list_partitions(workspace, ENHANCED) if is_caf(name)]
    if truth is None or not partitions:
        reason = (
            "clean originals of degraded images are not known outside a synthetic corpus"
            if truth is None
            else "no image was enhanced"
        )
        findings.measures |= enhancement.missing_enhancement(reason, findings.sampling)
        return
    compared = enhancement.compare_enhanced(
        workspace, read_table(workspace, ENHANCED, partitions), truth, panel.lpips
    )
    findings.measures |= enhancement.measure_enhancement(
        compared, findings.sampling, panel.absent["lpips"] if panel.lpips is None else None
    )
    findings.per_image.append(enhancement.per_image_rows(compared))
    if compared.height:
        path = findings.draw(
            "enhancement", "enhancement.png", "Enhanced and bicubically resized images."
        )
        plots.plot_enhancement(path, findings.measures)


PER_IMAGE_SCHEMA: dict[str, type[pl.DataType]] = {
    "kind": pl.String,
    "image_id": pl.String,
    "identity": pl.String,
    "target_age_years": pl.Float64,
    "age_years": pl.Float64,
    "detail": pl.String,
}
"""Columns of per_image.parquet: `kind` is label, enhancement or rendering; `detail` is JSON."""
