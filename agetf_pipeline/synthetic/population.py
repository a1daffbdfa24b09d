"""Who is photographed at which age, and what a crowd then says of the pictures."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from agetf_pipeline.data.ages import AGE_GROUPS, group_bounds, group_of
from agetf_pipeline.synthetic.identity import Identity, draw_identity

# Shares of the ten groups: as in FFHQ-Aging, but flatter, so that every group has support.
FFHQ_SHARES = (0.06, 0.08, 0.06, 0.06, 0.07, 0.19, 0.16, 0.12, 0.13, 0.07)
_OLDEST_YEARS = 97.0
_MISSING_POSE = -1.0
_MISSING_POSE_SHARE = 0.01
_GENDER_NOISE = 0.02


def age_at(position: float, shares: tuple[float, ...]) -> float:
    """Return the age (years) at a position 0 to 1 of a distribution over the ten groups.

    Within a group ages are even; above 70 they grow rarer up to 97.
    """
    edges = np.concatenate([[0.0], np.cumsum(np.asarray(shares) / np.sum(shares))])
    index = min(int(np.searchsorted(edges, position, side="right")) - 1, len(shares) - 1)
    inside = (position - edges[index]) / (edges[index + 1] - edges[index])
    low, high = group_bounds(AGE_GROUPS[index])
    if index == len(shares) - 1:
        return float(low + (_OLDEST_YEARS - low) * (1 - np.sqrt(max(1 - inside, 0.0))))
    return float(low + (high - low) * min(inside, 0.999))


def ffhq_ages(num_images: int, seed: int) -> np.ndarray:
    """Return an age (years) per image, float64 (N,): one in each N-th of the distribution."""
    rng = np.random.default_rng([101, seed, num_images])
    positions = (rng.permutation(num_images) + rng.uniform(0, 1, num_images)) / max(num_images, 1)
    return np.asarray([age_at(position, FFHQ_SHARES) for position in positions])


def subject_ages(num_ages: int, seed: int) -> list[int]:
    """Return the whole ages (years) at which a subject is photographed, rising, all different.

    They spread evenly over 0 to 98: the true CAF has 67 of 4,000 images over 70, on which a small
    corpus could teach nobody what an old face looks like.
    """
    rng = np.random.default_rng([103, seed])
    positions = (np.arange(num_ages) + rng.uniform(0, 1, num_ages)) / num_ages
    ages = [int(position * 99) for position in positions]
    for k in range(1, num_ages):
        ages[k] = max(ages[k], ages[k - 1] + 1)
    return ages


def rephotograph(identity: Identity, seed: int, variation: float = 1.0) -> Identity:
    """Return the same person before another camera: other place, clothes, light, pose, smile.

    Args:
        identity: The person, as first photographed.
        seed: Of the other photograph.
        variation: How far light, pose and smile move towards those of a stranger's photograph, 0
            to 1. Place and clothes are others at any value above 0.
    """
    if variation <= 0:
        return identity
    other = draw_identity(seed)
    moved = {
        name: (1 - variation) * getattr(identity, name) + variation * getattr(other, name)
        for name in _PHOTOGRAPH
    }
    smile = (1 - variation / 2) * identity.smile + variation / 2 * other.smile
    return dataclasses.replace(
        identity, background=other.background, clothes=other.clothes, smile=smile, **moved
    )


_PHOTOGRAPH = (
    "light_azimuth", "light_elevation", "light_softness", "light_warmth", "head_yaw", "head_pitch",
    "head_roll", "gaze",
)  # fmt: skip


@dataclass(frozen=True)
class CrowdLabel:
    """A row of `ffhq_aging_labels.csv`, but for its image number."""

    age_group: str
    age_group_confidence: float
    gender: str
    gender_confidence: float
    head_pitch: float
    head_roll: float
    head_yaw: float
    left_eye_occluded: float
    right_eye_occluded: float
    glasses: str


def crowd_labels(
    identities: list[Identity], ages_years: np.ndarray, crowd_error: float, seed: int
) -> list[CrowdLabel]:
    """Return what a crowd says of pictures, mistakes included.

    The crowd names the group of the age that it perceives, which lies off the true one by a normal
    error that grows with age: a standard deviation of 2 years and 12 % of the age, times
    `crowd_error`. At 1.25 that is a mean absolute error of 3 years at the age of 15 and 6 at 45,
    a little better than people were found to be (4.7 years on a set of mostly young faces, 7.2 on
    one of adults: Han, Otto and Jain, 2013).

    Args:
        identities: Who is in each picture, N of them.
        ages_years: True ages, (N,).
        crowd_error: Scale of the errors; 0 for a crowd that is always right.
        seed: Of the crowd.
    """
    rng = np.random.default_rng([107, seed])
    return [
        _label(identity, float(age), crowd_error, rng)
        for identity, age in zip(identities, ages_years, strict=True)
    ]


def _perceived_group(age: float, crowd_error: float, draw: float) -> tuple[str, float]:
    """Return the group that the crowd names, and the share of it that agrees."""
    perceived = min(max(age + crowd_error * (2.0 + 0.12 * age) * draw, 0.0), 100.0)
    group = group_of(perceived)
    spread = crowd_error * (1.0 + 0.04 * age)
    if spread <= 0:
        return group, 1.0
    low, high = group_bounds(group)
    below = 0.0 if group == AGE_GROUPS[0] else _normal_cdf((low - perceived) / spread)
    above = 0.0 if group == AGE_GROUPS[-1] else 1 - _normal_cdf((high - perceived) / spread)
    return group, 1 - below - above


def _normal_cdf(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def _label(who: Identity, age: float, crowd_error: float, rng: np.random.Generator) -> CrowdLabel:
    # Every draw is made for every picture: the n-th label does not depend on the ones before.
    flip, sure, lost = rng.uniform(0, 1, 3)
    occlusion, noise, error = rng.exponential(3.0, 2), rng.normal(0, 1.0, 3), rng.normal()
    group, confidence = _perceived_group(age, crowd_error, float(error))
    swapped = flip < _GENDER_NOISE * (3 if age < 3 else 1)
    gender = {"male": "female", "female": "male"}[who.gender] if swapped else who.gender
    gender_confidence = 0.52 + 0.25 * sure if swapped else 1 - (0.35 if age < 6 else 0.12) * sure
    pose = np.asarray([who.head_pitch, who.head_roll, who.head_yaw]) + noise
    if lost < _MISSING_POSE_SHARE:
        pose = np.full(3, _MISSING_POSE)
    covered = np.full(2, 99.0) if who.glasses == "Dark" else np.minimum(occlusion, 60.0)
    return CrowdLabel(
        age_group=group,
        age_group_confidence=round(float(confidence), 3),
        gender=gender,
        gender_confidence=round(float(gender_confidence), 3),
        head_pitch=round(float(pose[0]), 2),
        head_roll=round(float(pose[1]), 2),
        head_yaw=round(float(pose[2]), 2),
        left_eye_occluded=round(float(covered[0]), 2),
        right_eye_occluded=round(float(covered[1]), 2),
        glasses=who.glasses,
    )
