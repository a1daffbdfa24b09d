"""Measurements of a model: its renderings of held-out faces, read by the panel."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from agetf_pipeline.config.evaluate import EvaluateConfig
from agetf_pipeline.core.statistics import Measure, Sampling, absent, measure_mean
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.evaluation import cells, comparison, identity, plots, renderings, scores
from agetf_pipeline.evaluation.distribution_measures import (
    distance_scores,
    load_references,
    measure_distributions,
)
from agetf_pipeline.evaluation.held_out import (
    groups_of,
    held_out_rows,
    load_held_out,
    real_rows,
    rendered_rows,
    true_ages,
)
from agetf_pipeline.evaluation.measuring import PER_IMAGE_SCHEMA, Findings
from agetf_pipeline.evaluation.panel import Panel
from agetf_pipeline.evaluation.pictures import draw_cases, draw_champion, draw_grid
from agetf_pipeline.evaluation.readings import (
    ESTIMATOR,
    MIXTURE,
    HeldOutFaces,
    Rendered,
    RendersAges,
    render_and_read,
)
from agetf_pipeline.evaluation.redrawing import compare_with_truth


@dataclass(frozen=True)
class Model:
    """A renderer under test, with the side of the faces that it takes and its name for people."""

    renderer: RendersAges
    size_px: int
    name: str


@dataclass(frozen=True)
class Sources:
    """Which faces are rendered and compared with.

    Attributes:
        workspace: The workspace.
        manifest: The training manifest.
        images: Table `images` of all partitions.
        truth: The truth table, if there is one.
    """

    workspace: Workspace
    manifest: pl.DataFrame
    images: pl.DataFrame
    truth: pl.DataFrame | None


def add_renderings(
    findings: Findings,
    sources: Sources,
    model: Model,
    champion: Model | None,
    anchors_years: Sequence[float],
    panel: Panel,
    config: EvaluateConfig,
) -> None:
    """Measure renderings of held-out faces, and beside them the champion's of the same faces.

    Args:
        findings: Where the figures go.
        sources: Where the faces come from.
        model: The model under test.
        champion: What it is compared with; None where there is none.
        anchors_years: Target ages, ascending.
        panel: Who judges.
        config: What is measured.
    """
    sampling = findings.sampling
    rows = held_out_rows(sources.manifest)
    if not rows.height:
        reason = "no face is held out: every person is in the train split"
        findings.measures |= renderings.missing_ages(reason, sampling)
        findings.measures |= identity.missing_identity(reason, sampling)
        return
    chosen = rendered_rows(rows, config.num_faces)
    groups = groups_of(chosen, sources.images, sources.truth)
    # Two models of different sizes are judged on pictures of one size, the larger.
    read_px = max(model.size_px, 0 if champion is None else champion.size_px)
    held_out = load_held_out(sources.workspace, chosen, read_px, groups)
    rendered = render_and_read(
        model.renderer, held_out, anchors_years, panel, config.num_grid_faces,
        size_px=model.size_px,
    )  # fmt: skip
    verification = _add_real_faces(
        findings, sources, real_rows(rows), rendered, held_out, panel, config
    )
    threshold = None if verification is None else verification.threshold
    found = scores.face_scores(rendered, threshold)
    findings.measures |= scores.measure_scores(found, held_out, sampling)
    _add_ages(findings, rendered, held_out, panel)
    _add_identity(findings, rendered, held_out, panel, verification)
    findings.measures |= _not_read(panel, verification, findings.measures, sampling)
    _add_cells(findings, found, held_out)
    references = load_references(sources.workspace, sources.manifest, panel, read_px)
    findings.measures |= measure_distributions(rendered, held_out, references, panel, sampling)
    if sources.truth is not None:
        findings.measures |= compare_with_truth(
            sources.workspace, model.renderer, held_out, sources.truth, anchors_years,
            config.num_redrawn_faces, sampling, model.size_px,
        )  # fmt: skip
    findings.per_image.append(_per_image_rows(held_out, rendered))
    draw_grid(findings, held_out, rendered)
    draw_cases(
        findings, model.renderer, held_out, found, anchors_years, config.num_cases, model.size_px
    )
    if champion is None:
        return
    theirs = render_and_read(
        champion.renderer, held_out, anchors_years, panel, config.num_grid_faces,
        size_px=champion.size_px,
    )  # fmt: skip
    findings.measures |= comparison.compare(
        found | distance_scores(rendered, held_out, references),
        scores.face_scores(theirs, threshold) | distance_scores(theirs, held_out, references),
        held_out,
        sampling,
    )
    findings.measures |= comparison.compare_anchors(
        scores.anchor_scores(rendered), scores.anchor_scores(theirs), anchors_years, held_out,
        sampling,
    )  # fmt: skip
    draw_champion(findings, held_out, rendered, theirs, (model.name, champion.name))


def _add_cells(findings: Findings, found: Mapping[str, np.ndarray], held_out: HeldOutFaces) -> None:
    findings.measures |= cells.measure_cells(found, held_out, findings.sampling)
    findings.measures |= cells.worst_cells(findings.measures)
    if {"worst_cell/age_mae_years", "worst_cell/id_similarity"} & findings.measures.keys():
        path = findings.draw("groups", "groups.png", "Age error and identity by group of faces.")
        plots.plot_groups(path, findings.measures, findings.sampling.synthetic)


def _add_real_faces(
    findings: Findings,
    sources: Sources,
    rows: pl.DataFrame,
    rendered: Rendered,
    held_out: HeldOutFaces,
    panel: Panel,
    config: EvaluateConfig,
) -> identity.Verification | None:
    """Read real held-out faces: what the readers are worth, and the threshold of verification."""
    sampling = findings.sampling
    real = load_held_out(sources.workspace, rows, held_out.faces.shape[1])
    known = true_ages(rows, sources.truth)
    aged, num_rendered = np.isfinite(known), len(held_out.image_ids)
    for name, reader in (("age_estimator", panel.age_estimator), ("mixture", panel.mixture)):
        key = f"real/{name}_mae_years"
        if reader is None:
            findings.measures[key] = absent(panel.absent[name], "years")
            continue
        # Four networks a face: the mixture reads as many real faces as there are rendered ones.
        asked = aged if name == "age_estimator" else aged & (np.arange(len(aged)) < num_rendered)
        read = reader.read(real.faces[asked]) if asked.any() else np.empty(0)
        errors = np.abs(read - known[asked])
        found = scores.mean_of(errors, real.identities[asked], sampling, "years")
        if name == "mixture":
            found = found.noted("it may have been calibrated on faces among these")
        findings.measures[key] = found
        if name == "age_estimator":
            findings.measures |= renderings.measure_age_distributions(
                rendered.read_years[ESTIMATOR], rendered.anchors_years, read, known[aged],
                held_out.identities, sampling,
            )  # fmt: skip
    if rendered.source_found is not None:
        findings.measures["real/face_found_rate"] = measure_mean(
            rendered.source_found.astype(np.float64), held_out.identities, sampling
        )
    findings.measures |= {
        f"real/attribute_accuracy/{name}": item for name, item in panel.attribute_accuracy.items()
    }
    if panel.embedder is None:
        return None
    pairs = identity.real_pairs(panel.embedder.embed(real.faces), real.ages_years, real.identities)
    verification = identity.set_threshold(pairs, config.false_accept_rate)
    findings.measures |= identity.measure_real_pairs(verification, sampling)
    return verification


def _add_ages(findings: Findings, rendered: Rendered, held_out: HeldOutFaces, panel: Panel) -> None:
    sampling = findings.sampling
    for reader, prefix, place in (
        (ESTIMATOR, "", "age_estimator"), (MIXTURE, "mixture_", "mixture"),
    ):  # fmt: skip
        if reader not in rendered.read_years:
            findings.measures |= renderings.missing_ages(panel.absent[place], sampling, prefix)
            continue
        findings.measures |= renderings.measure_ages(
            rendered.read_years[reader], rendered.anchors_years, held_out.identities, sampling,
            prefix,
        )  # fmt: skip
    if rendered.read_years:
        path = findings.draw("read_ages", "read_ages.png", "Target age against the age read.")
        plots.plot_read_ages(path, rendered.anchors_years, rendered.read_years, sampling.synthetic)


def _add_identity(
    findings: Findings,
    rendered: Rendered,
    held_out: HeldOutFaces,
    panel: Panel,
    verification: identity.Verification | None,
) -> None:
    sampling = findings.sampling
    if rendered.similarity is None or verification is None:
        findings.measures |= identity.missing_identity(panel.absent["embedder"], sampling)
        return
    threshold = verification.threshold
    findings.measures |= identity.measure_identity(
        rendered.similarity,
        None if threshold is None else scores.verified(rendered, threshold),
        rendered.anchors_years, held_out.ages_years, held_out.identities, verification, sampling,
    )  # fmt: skip
    # Without a threshold there are no rates, and no picture of them.
    if threshold is not None:
        path = findings.draw("identity", "identity.png", "Verification at equal gaps of age.")
        plots.plot_identity(
            path, findings.measures, [identity.gap_name(gap) for gap in identity.GAPS_YEARS]
        )


def _not_read(
    panel: Panel,
    verification: identity.Verification | None,
    measures: Mapping[str, Measure],
    sampling: Sampling,
) -> dict[str, Measure]:
    """Return what a reader would have read who is not there, as not computed, with the reason."""
    wanted = {
        "renderings/attributes_kept": panel.absent.get("attributes"),
        "renderings/source_lpips": panel.absent.get("lpips"),
        "renderings/face_found_rate": panel.absent.get("face_finder"),
        "renderings/verification_rate": None if verification is None else verification.reason,
    }
    return {
        name: absent(reason, synthetic=sampling.synthetic)
        for name, reason in wanted.items()
        if name not in measures and reason is not None
    }


def _per_image_rows(held_out: HeldOutFaces, rendered: Rendered) -> pl.DataFrame:
    """Return a row per face and anchor: the age read, and everything else as JSON."""
    rows = []
    for i, image_id in enumerate(held_out.image_ids):
        for a, anchor in enumerate(rendered.anchors_years):
            read = rendered.read_years.get(ESTIMATOR)
            rows.append(
                ("rendering", image_id, str(held_out.identities[i]), float(anchor),
                 None if read is None else float(read[i, a]),
                 json.dumps(_detail(rendered, i, a), sort_keys=True))
            )  # fmt: skip
    return pl.DataFrame(rows, schema=PER_IMAGE_SCHEMA, orient="row")


def _detail(rendered: Rendered, i: int, a: int) -> dict[str, float | bool | None]:
    detail: dict[str, float | bool | None] = {
        "sharpness_ratio": round(float(rendered.sharpness_ratio[i, a]), 4)
    }
    if rendered.similarity is not None:
        detail["id_similarity"] = round(float(rendered.similarity[i, a]), 4)
    if MIXTURE in rendered.read_years:
        age = float(rendered.read_years[MIXTURE][i, a])
        detail["mixture_age_years"] = round(age, 3) if np.isfinite(age) else None
    if rendered.found is not None:
        detail["face_found"] = bool(rendered.found[i, a])
    return detail | {f"kept_{name}": bool(kept[i, a]) for name, kept in rendered.kept.items()}
