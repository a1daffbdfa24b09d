"""Renderings against real faces of the same age, as distributions: FID and KID.

Shapes: N faces, A anchors, D features, M real faces.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl

from agetf_pipeline.core.statistics import Measure, Sampling, absent
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS, group_of
from agetf_pipeline.data.images import load_faces
from agetf_pipeline.evaluation.distances import measure_fid, measure_kid
from agetf_pipeline.evaluation.kernel_distance import distance_of_each
from agetf_pipeline.evaluation.panel import FeatureExtractor, Panel
from agetf_pipeline.evaluation.readings import HeldOutFaces, Rendered, extractors

MAX_REFERENCES = 2000
"""Real faces of an age group that renderings are compared with."""

_FIGURES = {"inception": "kid", "own_features": "kid_own_features"}

References = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
"""Features (M, D) and persons (M,) of the real faces, by extractor and age group."""


def load_references(
    workspace: Workspace, manifest: pl.DataFrame, panel: Panel, size_px: int
) -> References:
    """Map real faces of every age group to features.

    Args:
        workspace: Where the faces lie.
        manifest: The training manifest; faces of every split are taken, since a few held-out
            people do not make a distribution.
        panel: With the extractors.
        size_px: Side at which faces are read: that at which renderings are, so that sharpness
            lost by size is no difference.
    """
    return {
        name: _references(workspace, manifest, extractor, size_px)
        for name, extractor in extractors(panel).items()
    }


def measure_distributions(
    rendered: Rendered,
    held_out: HeldOutFaces,
    references: References,
    panel: Panel,
    sampling: Sampling,
) -> dict[str, Measure]:
    """Measure KID of each age group, and FID of all renderings.

    A rendering belongs to the group of its target age, and is compared with real faces of that
    group. Only renderings of sources of other groups count: one that was that old already would
    stand for itself.

    Args:
        rendered: With features of each rendering.
        held_out: The faces.
        references: From `load_references`.
        panel: Says why there is no Inception.
        sampling: How intervals are made.

    Returns:
        `renderings/kid/<group>` and `renderings/fid` by Inception's features, and
        `renderings/kid_own_features/<group>` by those of a network of this project.
    """
    measures: dict[str, Measure] = {}
    if panel.inception is None:
        reason = panel.absent["inception"]
        for name in ("renderings/kid", "renderings/fid"):
            measures[name] = absent(reason, synthetic=sampling.synthetic)
    chosen = _chosen(rendered, held_out)
    for name, by_group in references.items():
        features_NAD = rendered.features[name]
        for group, chosen_NA in chosen.items():
            people_NA = np.broadcast_to(held_out.identities[:, None], chosen_NA.shape)
            measures[f"renderings/{_FIGURES[name]}/{group}"] = measure_kid(
                features_NAD[chosen_NA], people_NA[chosen_NA], *by_group[group], sampling
            )
    if "inception" in references:
        measures["renderings/fid"] = _fid(
            rendered.features["inception"], chosen, references["inception"], sampling
        )
    return measures


def distance_scores(
    rendered: Rendered, held_out: HeldOutFaces, references: References
) -> dict[str, np.ndarray]:
    """Return what each face adds to the distance from real faces, float64 (N,), by figure.

    The mean over its renderings at ages of other groups than its own. Means of single models lack
    the real faces' own part; differences of two models do not miss it.
    """
    scores = {}
    for name, by_group in references.items():
        features_NAD = rendered.features[name]
        parts_NA = np.full(features_NAD.shape[:2], np.nan)
        for group, chosen_NA in _chosen(rendered, held_out).items():
            real, real_people = by_group[group]
            if not len(real) or chosen_NA.any(axis=1).sum() < 2:
                continue
            for a in np.flatnonzero(chosen_NA.any(axis=0)):
                rows = np.flatnonzero(chosen_NA[:, a])
                parts_NA[rows, a] = distance_of_each(
                    features_NAD[rows, a], held_out.identities[rows], real, real_people
                )
        known_N = np.isfinite(parts_NA).any(axis=1)
        scores[_FIGURES[name]] = np.full(len(parts_NA), np.nan)
        scores[_FIGURES[name]][known_N] = np.nanmean(parts_NA[known_N], axis=1)
    return scores


def _chosen(rendered: Rendered, held_out: HeldOutFaces) -> dict[str, np.ndarray]:
    """Return the renderings of each target age group, bool (N, A), of sources of other groups."""
    target_groups = np.array([group_of(age) for age in rendered.anchors_years])
    source_groups = np.array([group_of(age) for age in held_out.ages_years])
    return {
        group: (target_groups == group)[None] & (source_groups != group)[:, None]
        for group in AGE_GROUPS
        if group in target_groups
    }


def _fid(
    features_NAD: np.ndarray,
    chosen: Mapping[str, np.ndarray],
    by_group: Mapping[str, tuple[np.ndarray, np.ndarray]],
    sampling: Sampling,
) -> Measure:
    """Measure FID of all renderings against real faces of the groups that were asked for."""
    real = [by_group[group][0] for group in chosen if len(by_group[group][0])]
    if not real:
        return absent("there is no real face of any target age", synthetic=sampling.synthetic)
    generated = np.concatenate([features_NAD[chosen_NA] for chosen_NA in chosen.values()])
    found = measure_fid(generated, np.concatenate(real), sampling=sampling)
    if found.value is None:
        return found
    return found.noted("ages asked for are even, those of the real faces are the corpus' own")


def _references(
    workspace: Workspace, manifest: pl.DataFrame, extractor: FeatureExtractor, size_px: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return features (M, D) and persons (M,) of the real faces of each age group."""
    references = {}
    shown = manifest.with_columns(pl.coalesce("enhanced_path", "face_path").alias("shown_path"))
    for group in AGE_GROUPS:
        # image_id is a hash: the first by it are drawn at random, the same on every machine.
        rows = shown.filter(pl.col("age_group") == group).sort("image_id").head(MAX_REFERENCES)
        if rows.height:
            features = extractor.features(load_faces(workspace, rows["shown_path"], size_px))
        else:
            features = np.empty((0, 1), np.float32)
        references[group] = (features, rows["identity"].to_numpy())
    return references
