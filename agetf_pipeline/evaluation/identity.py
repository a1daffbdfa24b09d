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


def measure_identity(
    similarity_NA: np.ndarray,
    anchors_years: Sequence[float],
    ages_years: np.ndarray,
    identities: np.ndarray,
    pairs: tuple[Pairs, Pairs],
    false_accept_rate: float,
    sampling: Sampling,
) -> dict[str, Measure]:
    """Measure identity of renderings, and of real people at the same gaps of age.

    Args:
        similarity_NA: Cosine of each rendering to its source (N, A).
        anchors_years: Target ages (A,).
        ages_years: Age of each source (N,).
        identities: Person of each source (N,).
        pairs: Genuine and impostor pairs of real images.
        false_accept_rate: Sets the threshold.
        sampling: How intervals are made; n counts faces or pairs.
    """
    genuine, impostor = pairs
    measures = {
        "renderings/id_similarity": measure_mean(similarity_NA.mean(axis=1), identities, sampling),
        "real/id_similarity_genuine": measure_mean(genuine.scores, genuine.identities, sampling),
        "real/id_similarity_impostor": measure_mean(impostor.scores, impostor.identities, sampling),
    }
    for a, anchor in enumerate(anchors_years):
        measures[f"renderings/id_similarity/{anchor:g}"] = measure_mean(
            similarity_NA[:, a], identities, sampling
        )
    threshold = threshold_at_far(impostor.scores, false_accept_rate)
    num_impostors = len(impostor.scores)
    if not np.isfinite(threshold):
        reason = (
            f"{num_impostors} different-identity pairs are too few for a threshold at a false "
            f"accept rate of {false_accept_rate:g}"
        )
        names = ("real/verification_threshold", "real/genuine_rate", "renderings/verification_rate")
        return measures | {
            name: absent(reason, n=num_impostors, synthetic=sampling.synthetic) for name in names
        }
    measures["real/verification_threshold"] = Measure(
        threshold,
        n=num_impostors,
        synthetic=sampling.synthetic,
        reason="no interval: the threshold is fixed for all rates below",
    )
    gaps_NA = np.abs(np.asarray(anchors_years)[None] - ages_years[:, None])
    return measures | _rates(similarity_NA, gaps_NA, identities, genuine, threshold, sampling)


def _rates(
    similarity_NA: np.ndarray,
    gaps_NA: np.ndarray,
    identities: np.ndarray,
    genuine: Pairs,
    threshold: float,
    sampling: Sampling,
) -> dict[str, Measure]:
    """Rates at the threshold: of all renderings, of all genuine pairs, and per gap of age."""
    accepted_NA = (similarity_NA >= threshold).astype(np.float64)
    accepted = (genuine.scores >= threshold).astype(np.float64)
    measures = {
        "renderings/verification_rate": measure_mean(
            accepted_NA.mean(axis=1), identities, sampling
        ),
        "real/genuine_rate": measure_mean(accepted, genuine.identities, sampling),
    }
    people_NA = np.broadcast_to(identities[:, None], gaps_NA.shape)
    for gap in GAPS_YEARS:
        of_rendered = (gaps_NA >= gap[0]) & (gaps_NA < gap[1])
        of_real = (genuine.gaps_years >= gap[0]) & (genuine.gaps_years < gap[1])
        measures[f"renderings/verification_rate/gap_{gap_name(gap)}"] = measure_mean(
            accepted_NA[of_rendered], people_NA[of_rendered], sampling
        )
        measures[f"real/genuine_rate/gap_{gap_name(gap)}"] = measure_mean(
            accepted[of_real], genuine.identities[of_real], sampling
        )
    return measures


def missing_identity(reason: str, sampling: Sampling) -> dict[str, Measure]:
    """Return the figures of identity as not computed, with the reason."""
    names = ("renderings/id_similarity", "renderings/verification_rate", "real/genuine_rate")
    return {name: absent(reason, synthetic=sampling.synthetic) for name in names}
