"""A number per face and figure: what means, groups and comparisons of two models are made of.

Shapes: N faces, A anchors.
"""

from collections.abc import Mapping

import numpy as np

from agetf_pipeline.core.statistics import Measure, Sampling, absent, measure_mean
from agetf_pipeline.evaluation.readings import ESTIMATOR, MIXTURE, HeldOutFaces, Rendered

UNITS = {
    "age_mae_years": "years",
    "mixture_age_mae_years": "years",
    "source_psnr": "dB",
}
LESS_IS_BETTER = frozenset(
    (
        "age_mae_years",
        "mixture_age_mae_years",
        "order_violation_rate",
        "source_lpips",
        "sharpness_error",
    )
)
GROUPED = (
    "age_mae_years", "mixture_age_mae_years", "id_similarity", "verification_rate",
    "face_found_rate", "attributes_kept", "source_ssim",
)  # fmt: skip
"""Figures that are shown for every group of faces, where they could be computed."""


def face_scores(rendered: Rendered, threshold: float | None) -> dict[str, np.ndarray]:
    """Return a number per face and figure, float64 (N,), NaN where it could not be read.

    Args:
        rendered: What was read.
        threshold: Of verification; None without one.

    Returns:
        By name: age MAE by the outside estimator and by the mixture, the rate of neighbouring
        anchors in the wrong order, similarity to the source, verification rate, share of
        renderings in which a face is found, share of attributes kept (all, and each), sharpness
        over the source's and how far its logarithm is from 0 (blur and grain alike), and PSNR,
        SSIM and LPIPS at the source's own age. What nobody could read is left out.
    """
    scores = {
        "sharpness_ratio": rendered.sharpness_ratio.mean(axis=1),
        "sharpness_error": np.abs(np.log(np.maximum(rendered.sharpness_ratio, 1e-3))).mean(axis=1),
        "source_psnr": rendered.source_psnr,
        "source_ssim": rendered.source_ssim,
    }
    targets = np.asarray(rendered.anchors_years)[None]
    for reader, prefix in ((ESTIMATOR, ""), (MIXTURE, "mixture_")):
        if reader in rendered.read_years:
            errors = np.abs(rendered.read_years[reader] - targets)
            scores[f"{prefix}age_mae_years"] = errors.mean(axis=1)
    if ESTIMATOR in rendered.read_years and len(rendered.anchors_years) > 1:
        falls = np.diff(rendered.read_years[ESTIMATOR], axis=1) < 0
        scores["order_violation_rate"] = falls.mean(axis=1)
    if rendered.similarity is not None:
        scores["id_similarity"] = rendered.similarity.mean(axis=1)
        if threshold is not None:
            scores["verification_rate"] = verified(rendered, threshold).mean(axis=1)
    if rendered.found is not None:
        scores["face_found_rate"] = rendered.found.mean(axis=1)
    if rendered.kept:
        for name, kept in rendered.kept.items():
            scores[f"attributes_kept/{name}"] = kept.mean(axis=1)
        scores["attributes_kept"] = np.mean([kept.mean(axis=1) for kept in rendered.kept.values()],
                                            axis=0)  # fmt: skip
    if rendered.source_lpips is not None:
        scores["source_lpips"] = rendered.source_lpips
    return {name: values.astype(np.float64) for name, values in scores.items()}


def verified(rendered: Rendered, threshold: float) -> np.ndarray:
    """Return which renderings pass as their source, bool (N, A).

    One in which no face is found, though one is found in its source, does not pass: it is counted
    as a failure, never left out.
    """
    assert rendered.similarity is not None
    passed = rendered.similarity >= threshold
    if rendered.found is not None and rendered.source_found is not None:
        passed &= rendered.found | ~rendered.source_found[:, None]
    return passed


def measure_scores(
    scores: Mapping[str, np.ndarray], held_out: HeldOutFaces, sampling: Sampling
) -> dict[str, Measure]:
    """Return the mean of each figure over the faces, `renderings/<figure>`."""
    return {
        f"renderings/{name}": mean_of(values, held_out.identities, sampling, unit_of(name))
        for name, values in scores.items()
    }


def mean_of(
    values: np.ndarray, identities: np.ndarray, sampling: Sampling, unit: str = ""
) -> Measure:
    """Return the mean over the faces that have a number; none is left out without saying so."""
    known = np.isfinite(values)
    if known.all():
        return measure_mean(values, identities, sampling, unit)
    if not known.any():
        return absent("it could be read of no face", unit, 0, sampling.synthetic)
    found = measure_mean(values[known], identities[known], sampling, unit)
    note = f"{(~known).sum()} of {len(known)} faces have no such reading"
    return found.noted(note)


def unit_of(name: str) -> str:
    """Return the unit of a figure, empty where it has none."""
    return UNITS.get(name, "")


def anchor_scores(rendered: Rendered) -> dict[str, np.ndarray]:
    """Return age error and similarity of each face at each anchor, float64 (N, A), by figure."""
    scores = {}
    if ESTIMATOR in rendered.read_years:
        targets = np.asarray(rendered.anchors_years)[None]
        scores["age_mae_years"] = np.abs(rendered.read_years[ESTIMATOR] - targets)
    if rendered.similarity is not None:
        scores["id_similarity"] = rendered.similarity
    return scores
