"""Which faces came out best, middling and worst: shown, so that no mean hides them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agetf_pipeline.evaluation.scores import LESS_IS_BETTER

_JUDGED_BY = ("age_mae_years", "id_similarity", "source_ssim")


@dataclass(frozen=True)
class Case:
    """A face worth looking at: which, why, and its numbers in words."""

    index: int
    kind: str
    label: str


def choose_cases(scores: Mapping[str, np.ndarray], num_cases: int) -> list[Case]:
    """Return the best, the median and the worst faces, at most `num_cases` of each, none twice.

    A face's place is the mean of its ranks by age error, similarity to the source and SSIM at its
    own age, as far as they were read; ties go by the order of the faces.

    Args:
        scores: A number per face and figure, from `scores.face_scores`.
        num_cases: Of each kind.
    """
    ranked = [name for name in _JUDGED_BY if name in scores]
    ranks = np.mean([_ranks(scores[name], name in LESS_IS_BETTER) for name in ranked], axis=0)
    order = np.argsort(ranks, kind="stable")
    num = min(num_cases, len(order) // 3) or 1
    middle = (len(order) - num) // 2
    places = {
        "best": order[:num],
        "median": order[middle : middle + num],
        "worst": order[len(order) - num :],
    }
    chosen, taken = [], set()
    for kind, indices in places.items():
        for index in indices:
            if int(index) not in taken:
                taken.add(int(index))
                chosen.append(Case(int(index), kind, _label(scores, int(index), kind)))
    return chosen


def _ranks(values: np.ndarray, less_is_better: bool) -> np.ndarray:
    """Return ranks, 0 the best; what could not be read ranks last."""
    signed = values if less_is_better else -values
    order = np.argsort(np.where(np.isfinite(signed), signed, np.inf), kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values))
    return ranks


def _label(scores: Mapping[str, np.ndarray], index: int, kind: str) -> str:
    parts = [kind]
    if "age_mae_years" in scores:
        parts.append(f"MAE {scores['age_mae_years'][index]:.1f}")
    if "id_similarity" in scores:
        parts.append(f"id {scores['id_similarity'][index]:.2f}")
    return ", ".join(parts)
