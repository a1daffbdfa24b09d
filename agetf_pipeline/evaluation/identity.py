"""Identity: verification at a threshold set on real pairs, beside real people at the same gaps.

A rendering at +50 years cannot be asked to look more like its source than a real photograph of
that person 50 years later does: the genuine rate at the same age gap stands beside every rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agetf_pipeline.core.statistics import (
    Measure,
    Sampling,
    absent,
    measure_mean,
    threshold_at_far,
)

GAPS_YEARS: tuple[tuple[float, float], ...] = ((0, 10), (10, 20), (20, 40), (40, 101))


@dataclass(frozen=True)
class Pairs:
    """Pairs of real images.

    Attributes:
        scores: float64 (P,), cosine similarity.
        gaps_years: float64 (P,), absolute difference of the two ages.
        identities: (P,), the person of the first image.
    """

    scores: np.ndarray
    gaps_years: np.ndarray
    identities: np.ndarray


def real_pairs(
    embeddings_ND: np.ndarray, ages_years: np.ndarray, identities: np.ndarray
) -> tuple[Pairs, Pairs]:
    """Return all same-person pairs and all different-person pairs of N images.

    Args:
        embeddings_ND: Unit vectors (N, D).
        ages_years: (N,).
        identities: (N,).
    """
    first, second = np.triu_indices(len(identities), k=1)
    scores = (embeddings_ND @ embeddings_ND.T)[first, second]
    gaps = np.abs(ages_years[first] - ages_years[second])
    same = identities[first] == identities[second]
    names = identities[first]
    genuine = Pairs(scores[same], gaps[same], names[same])
    return genuine, Pairs(scores[~same], gaps[~same], names[~same])


def gap_name(gap: tuple[float, float]) -> str:
    """Return the name of an age gap, such as `10-20`."""
    return f"{gap[0]:g}-{min(gap[1], 100):g}"


@dataclass(frozen=True)
class Verification:
    """A threshold and the real pairs that it was set on.

    Attributes:
        threshold: Cosine from which two images pass as one person; None with too few pairs.
        genuine: Pairs of one person.
        impostor: Pairs of two people.
        reason: Why there is no threshold.
    """

    threshold: float | None
    genuine: Pairs
    impostor: Pairs
    reason: str | None = None


def set_threshold(pairs: tuple[Pairs, Pairs], false_accept_rate: float) -> Verification:
    """Set the threshold at a false accept rate on pairs of different real people.

    Args:
        pairs: Genuine and impostor pairs, from `real_pairs`.
        false_accept_rate: Share of impostor pairs that may pass.
    """
    genuine, impostor = pairs
    threshold = threshold_at_far(impostor.scores, false_accept_rate)
    if np.isfinite(threshold):
        return Verification(threshold, genuine, impostor)
    reason = (
        f"{len(impostor.scores)} different-identity pairs are too few for a threshold at a false "
        f"accept rate of {false_accept_rate:g}"
    )
    return Verification(None, genuine, impostor, reason)


def measure_real_pairs(verification: Verification, sampling: Sampling) -> dict[str, Measure]:
    """Measure what the embedder makes of real people: similarities, threshold, genuine rates."""
    genuine, impostor = verification.genuine, verification.impostor
    measures = {
        "real/id_similarity_genuine": measure_mean(genuine.scores, genuine.identities, sampling),
        # Every image is in thousands of pairs: to draw people for one side alone would give an
        # interval that holds the mean far too seldom.
        "real/id_similarity_impostor": _without_interval(impostor.scores, sampling),
    }
    num_impostors = len(impostor.scores)
    if verification.threshold is None:
        names = ("real/verification_threshold", "real/genuine_rate")
        reason = verification.reason or ""
        return measures | {
            name: absent(reason, n=num_impostors, synthetic=sampling.synthetic) for name in names
        }
    accepted = (genuine.scores >= verification.threshold).astype(np.float64)
    measures["real/verification_threshold"] = Measure(
        verification.threshold,
        n=num_impostors,
        synthetic=sampling.synthetic,
        reason="no interval: the threshold is fixed for all rates below",
    )
    measures["real/genuine_rate"] = measure_mean(accepted, genuine.identities, sampling)
    for gap in GAPS_YEARS:
        inside = (genuine.gaps_years >= gap[0]) & (genuine.gaps_years < gap[1])
        measures[f"real/genuine_rate/gap_{gap_name(gap)}"] = measure_mean(
            accepted[inside], genuine.identities[inside], sampling
        )
    return measures


def _without_interval(scores: np.ndarray, sampling: Sampling) -> Measure:
    n = len(scores)
    if n < sampling.min_cell:
        reason = f"suppressed: n = {n} is below {sampling.min_cell}"
        return absent(reason, "", n, sampling.synthetic)
    reason = "no interval: pairs share their images"
    return Measure(float(scores.mean()), n=n, synthetic=sampling.synthetic, reason=reason)


def measure_identity(
    similarity_NA: np.ndarray,
    verified_NA: np.ndarray | None,
    anchors_years: Sequence[float],
    ages_years: np.ndarray,
    identities: np.ndarray,
    verification: Verification,
    sampling: Sampling,
) -> dict[str, Measure]:
    """Measure identity of renderings at each anchor and at each gap of age.

    Args:
        similarity_NA: Cosine of each rendering to its source (N, A).
        verified_NA: Which renderings pass as their source; None without a threshold.
        anchors_years: Target ages (A,).
        ages_years: Age of each source (N,).
        identities: Person of each source (N,).
        verification: The threshold.
        sampling: How intervals are made; n counts faces, or renderings of a gap.
    """
    measures = {}
    for a, anchor in enumerate(anchors_years):
        measures[f"renderings/id_similarity/{anchor:g}"] = measure_mean(
            similarity_NA[:, a], identities, sampling
        )
    if verified_NA is None:
        reason = verification.reason or "there is no threshold"
        return measures | {
            "renderings/verification_rate": absent(reason, synthetic=sampling.synthetic)
        }
    passed_NA = verified_NA.astype(np.float64)
    for a, anchor in enumerate(anchors_years):
        measures[f"renderings/verification_rate/{anchor:g}"] = measure_mean(
            passed_NA[:, a], identities, sampling
        )
    gaps_NA = np.abs(np.asarray(anchors_years)[None] - ages_years[:, None])
    people_NA = np.broadcast_to(identities[:, None], gaps_NA.shape)
    for gap in GAPS_YEARS:
        inside = (gaps_NA >= gap[0]) & (gaps_NA < gap[1])
        measures[f"renderings/verification_rate/gap_{gap_name(gap)}"] = measure_mean(
            passed_NA[inside], people_NA[inside], sampling
        )
    return measures


def missing_identity(reason: str, sampling: Sampling) -> dict[str, Measure]:
    """Return the figures of identity as not computed, with the reason."""
    names = ("renderings/id_similarity", "renderings/verification_rate", "real/genuine_rate")
    return {name: absent(reason, synthetic=sampling.synthetic) for name in names}
