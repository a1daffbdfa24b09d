"""Fisher's discriminant: of what a network sees, what tells people apart whatever their age.

Shapes: N faces, D features, P people.
"""

from dataclasses import dataclass

import numpy as np

SHRINKAGE = 0.3
"""Of the covariance within people, towards a multiple of the identity."""
_FACES_PER_DIMENSION = 4


@dataclass(frozen=True)
class Discriminant:
    """A linear map, (features - centre) @ matrix.

    Attributes:
        centre: float64 (D,), the mean feature.
        matrix: float64 (D, D), its columns from the most telling direction to the least.
    """

    centre: np.ndarray
    matrix: np.ndarray


def fisher_discriminant(features_ND: np.ndarray, people_N: np.ndarray) -> Discriminant | None:
    """Return the map after which the cosine compares people as well as a linear map lets it.

    Features are made white within people (what differs between two photographs of one person then
    weighs alike in every direction), turned to the directions in which people differ, and each of
    these is weighed by the root of the share of its variance that lies between people.

    Args:
        features_ND: float (N, D).
        people_N: int (N,).

    Returns:
        The map; None where there are too few second photographs to tell within from between: four
        per dimension are asked for.

    Source: Fisher (1936); the weights are those of probabilistic LDA's posterior mean (Ioffe,
    2006). The covariance within people is shrunk by 0.3 (Friedman, 1989).
    """
    x = np.asarray(features_ND, np.float64)
    num_dimensions = x.shape[1]
    people = np.unique(people_N, return_inverse=True)[1]
    counts_P = np.bincount(people)
    num_second = len(x) - len(counts_P)
    if len(counts_P) < 2 or num_second < _FACES_PER_DIMENSION * num_dimensions:
        return None
    centre = x.mean(axis=0)
    means_PD = np.stack([np.bincount(people, column) for column in x.T], axis=1) / counts_P[:, None]
    inside_ND = x - means_PD[people]
    within_DD = inside_ND.T @ inside_ND / num_second
    # Means of few photographs vary by what differs within a person, too.
    between_DD = np.cov(means_PD.T) - within_DD * np.mean(1 / counts_P)
    size = np.trace(within_DD) / num_dimensions
    shrunk_DD = within_DD + SHRINKAGE * size * np.eye(num_dimensions)
    variances_D, axes_DD = np.linalg.eigh(shrunk_DD)
    whitening_DD = axes_DD / np.sqrt(variances_D)
    ratios_D, turned_DD = np.linalg.eigh(whitening_DD.T @ between_DD @ whitening_DD)
    order = np.argsort(-ratios_D)
    ratios_D = ratios_D[order].clip(min=1e-6)
    weights_D = np.sqrt(ratios_D / (1 + ratios_D))
    return Discriminant(centre, whitening_DD @ turned_DD[:, order] * weights_D)
