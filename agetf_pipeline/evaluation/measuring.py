"""All measurements of a run, from a workspace's tables, images and networks to figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from agetf_pipeline.config.evaluate import EvaluateConfig
from agetf_pipeline.core.statistics import Measure, Sampling, absent, measure_mean
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace, is_caf
from agetf_pipeline.data.schemas import ENHANCED, IMAGES, LABELS, PREDICTIONS
from agetf_pipeline.data.tables import list_partitions, read_table
from agetf_pipeline.evaluation import enhancement, identity, labels, plots, renderings
from agetf_pipeline.evaluation.held_out import (
    MAX_REAL_FACES,
    held_out_rows,
    load_held_out,
    true_ages,
)
from agetf_pipeline.evaluation.judges import Judge, embed, read_ages
from agetf_pipeline.evaluation.redrawing import compare_with_truth
from agetf_pipeline.evaluation.renderings import RendersAges
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
    """

    folder: Path
    sampling: Sampling
    measures: dict[str, Measure] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    per_image: list[pl.DataFrame] = field(default_factory=list)

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
    joined = labels.join_labels(
        read_table(workspace, IMAGES, wanted),
        read_table(workspace, LABELS, wanted),
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


def add_enhancement(findings: Findings, workspace: Workspace, truth: pl.DataFrame | None) -> None:
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
        workspace, read_table(workspace, ENHANCED, partitions), truth
    )
    findings.measures |= enhancement.measure_enhancement(compared, findings.sampling)
    findings.per_image.append(enhancement.per_image_rows(compared))
    if compared.height:
        path = findings.draw(
            "enhancement", "enhancement.png", "Enhanced and bicubically resized images."
        )
        plots.plot_enhancement(path, findings.measures)


def add_renderings(
    findings: Findings,
    workspace: Workspace,
    manifest: pl.DataFrame,
    truth: pl.DataFrame | None,
    renderer: RendersAges,
    size_px: int,
    anchors_years: Sequence[float],
    judges: tuple[Judge | None, Judge | None],
    config: EvaluateConfig,
) -> None:
    """Measure renderings of held-out faces.

    Args:
        findings: Where the figures go.
        workspace: The workspace.
        manifest: The training manifest.
        truth: The truth table, if there is one.
        renderer: The model under test.
        size_px: Side of the faces that it takes.
        anchors_years: Target ages, ascending.
        judges: Outside age estimator and identity embedder, each where there is one.
        config: What is measured.
    """
    sampling = findings.sampling
    rows = held_out_rows(manifest)
    age_judge, identity_judge = judges
    if not rows.height:
        reason = "no face is held out: every person is in the train split"
        findings.measures |= renderings.missing_ages(reason, sampling)
        findings.measures |= identity.missing_identity(reason, sampling)
        return
    held_out = load_held_out(workspace, rows.head(config.num_faces), size_px)
    rendered = renderings.render_and_read(
        renderer, held_out, anchors_years, age_judge, identity_judge, config.num_grid_faces
    )
    people = held_out.identities
    findings.measures |= renderings.measure_quality(rendered, people, sampling)
    real = load_held_out(workspace, rows.head(MAX_REAL_FACES), size_px)
    if rendered.read_years is None or age_judge is None:
        reason = "there is no age estimator outside training: see the stage train_evaluators"
        findings.measures |= renderings.missing_ages(reason, sampling)
        findings.measures["real/age_estimator_mae_years"] = absent(reason)
    else:
        findings.measures |= renderings.measure_ages(
            rendered.read_years, anchors_years, people, sampling
        )
        known = true_ages(rows.head(MAX_REAL_FACES), truth)
        error = np.abs(read_ages(age_judge, real.faces) - known)
        findings.measures["real/age_estimator_mae_years"] = measure_mean(
            error[np.isfinite(known)], real.identities[np.isfinite(known)], sampling, "years"
        )
        path = findings.draw("read_ages", "read_ages.png", "Target age against the age read.")
        plots.plot_read_ages(path, anchors_years, rendered.read_years, sampling.synthetic)
    if rendered.similarity is None or identity_judge is None:
        reason = "there is no identity embedder outside training: see the stage train_evaluators"
        findings.measures |= identity.missing_identity(reason, sampling)
    else:
        pairs = identity.real_pairs(
            embed(identity_judge, real.faces), real.ages_years, real.identities
        )
        findings.measures |= identity.measure_identity(
            rendered.similarity, anchors_years, held_out.ages_years, people, pairs,
            config.false_accept_rate, sampling,
        )  # fmt: skip
        gaps = [identity.gap_name(gap) for gap in identity.GAPS_YEARS]
        # Without a threshold there are no rates, and no picture of them.
        if findings.measures["renderings/verification_rate"].value is not None:
            path = findings.draw("identity", "identity.png", "Verification at equal gaps of age.")
            plots.plot_identity(path, findings.measures, gaps)
    if truth is not None:
        findings.measures |= compare_with_truth(
            workspace, renderer, held_out, truth, anchors_years, config.num_faces, sampling
        )
    findings.per_image.append(_per_image_rows(held_out, rendered))
    _draw_grid(findings, held_out, rendered)


def _draw_grid(
    findings: Findings, held_out: renderings.HeldOutFaces, rendered: renderings.Rendered
) -> None:
    from agetf_pipeline.age_transformer.grid import save_grid

    num = len(rendered.grid)
    synthetic = findings.sampling.synthetic
    save_grid(
        findings.draw("grid", "grid.png", "Held-out faces at ten ages."),
        held_out.faces[:num],
        rendered.grid,
        rendered.anchors_years,
        row_labels=[f"{age:.0f} years" for age in held_out.ages_years[:num]],
        footer="synthetic faces, held out of training" if synthetic else "held out of training",
    )


def _per_image_rows(
    held_out: renderings.HeldOutFaces, rendered: renderings.Rendered
) -> pl.DataFrame:
    import json

    rows = []
    for i, image_id in enumerate(held_out.image_ids):
        for a, anchor in enumerate(rendered.anchors_years):
            detail = {"sharpness_ratio": round(float(rendered.sharpness_ratio[i, a]), 4)}
            if rendered.similarity is not None:
                detail["id_similarity"] = round(float(rendered.similarity[i, a]), 4)
            read = None if rendered.read_years is None else float(rendered.read_years[i, a])
            rows.append(
                ("rendering", image_id, str(held_out.identities[i]), float(anchor), read,
                 json.dumps(detail, sort_keys=True))
            )  # fmt: skip
    return pl.DataFrame(rows, schema=PER_IMAGE_SCHEMA, orient="row")


PER_IMAGE_SCHEMA: dict[str, type[pl.DataType]] = {
    "kind": pl.String,
    "image_id": pl.String,
    "identity": pl.String,
    "target_age_years": pl.Float64,
    "age_years": pl.Float64,
    "detail": pl.String,
}
"""Columns of per_image.parquet: `kind` is label, enhancement or rendering; `detail` is JSON."""
