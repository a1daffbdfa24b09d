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
from agetf_pipeline.evaluation.panel import FeatureExtractor, Panel
from agetf_pipeline.evaluation.readings import HeldOutFaces, Rendered, extractors

MAX_REFERENCES = 2000
"""Real faces of an age group that renderings are compared with."""

_NAMES = {"inception": "", "own_features": "_own_features"}


def measure_distributions(
    rendered: Rendered,
    held_out: HeldOutFaces,
    workspace: Workspace,
    manifest: pl.DataFrame,
    panel: Panel,
    size_px: int,
    sampling: Sampling,
) -> dict[str, Measure]:
    """Measure KID of each age group, and FID of all renderings.

    A rendering belongs to the group of its target age. It is compared with the corpus' faces of
    that group, of every split: a few held-out people do not make a distribution. Only renderings
    of faces of other groups count: one that was that old already would stand for itself.

    Args:
        rendered: With features of each rendering.
        held_out: The faces.
        workspace: Where the real faces lie.
        manifest: The training manifest.
        panel: With the extractors.
        size_px: Side at which real faces are read: that of the renderings, so that sharpness
            lost by size is no difference.
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
    for name, extractor in extractors(panel).items():
        features_NAD = rendered.features[name]
        references = _references(workspace, manifest, extractor, size_px)
        measures |= _kid_by_group(
            f"renderings/kid{_NAMES[name]}", features_NAD, rendered, held_out, references, sampling
        )
        if name == "inception":
            everybody = np.concatenate([features for features, _ in references.values()])
            generated = features_NAD.reshape(-1, features_NAD.shape[-1])
            measures["renderings/fid"] = measure_fid(generated, everybody, sampling=sampling)
    return measures


def _kid_by_group(
    prefix: str,
    features_NAD: np.ndarray,
    rendered: Rendered,
    held_out: HeldOutFaces,
    references: Mapping[str, tuple[np.ndarray, np.ndarray]],
    sampling: Sampling,
) -> dict[str, Measure]:
    target_groups = np.array([group_of(age) for age in rendered.anchors_years])
    source_groups = np.array([group_of(age) for age in held_out.ages_years])
    measures = {}
    for group in AGE_GROUPS:
        if group not in target_groups:
            continue
        chosen_NA = (target_groups == group)[None] & (source_groups != group)[:, None]
        people_NA = np.broadcast_to(held_out.identities[:, None], chosen_NA.shape)
        real, real_people = references[group]
        measures[f"{prefix}/{group}"] = measure_kid(
            features_NAD[chosen_NA], people_NA[chosen_NA], real, real_people, sampling
        )
    return measures


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
