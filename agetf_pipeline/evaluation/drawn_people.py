"""People drawn for the evaluators alone: who they are, and photographs of them.

Light imports alone: worker processes start with this module.
"""

from dataclasses import dataclass

import numpy as np

from agetf_pipeline.synthetic.degrade import BLUR, GREY, JPEG, LOW_RES, degrade
from agetf_pipeline.synthetic.faces import draw_face
from agetf_pipeline.synthetic.identity import (
    EYE_COLOURS,
    FACIAL_HAIR,
    GLASSES,
    HAIR_COLOURS,
    HAIR_CUTS,
    Identity,
    draw_identity,
)
from agetf_pipeline.synthetic.population import rephotograph

FIRST_SEED = 1 << 40
"""Seeds of the people drawn for the evaluators start here, far above those of any corpus."""

# Photographs of one person are as unlike in light and pose as those of a corpus, up to those of
# strangers: an embedder that saw only the former would take a pose for a person.
_VARIATION = (0.3, 1.0)
# Old photographs, as a corpus has them before and after enhancement.
_DEGRADED_SHARE = 0.3
_KINDS = ((GREY,), (LOW_RES,), (BLUR,), (JPEG,), (GREY, LOW_RES), (BLUR, JPEG))

# What of a person can be seen at 64 px, and stays: measures of the face, and what there is of each
# kind. Left out is what a photograph changes (smile), and what no small picture shows.
_MEASURES = (
    "skin_tone", "skin_warmth", "face_width", "face_length", "jaw_width", "jaw_squareness",
    "cheeks", "eye_size", "eye_spacing", "eye_tilt", "eye_openness", "brow_thickness", "brow_arch",
    "brow_height", "nose_width", "nose_length", "nose_bridge", "mouth_width", "lip_fullness",
    "hair_shade", "hair_volume", "hairline", "balding",
)  # fmt: skip
_CHOICES: dict[str, tuple[str, ...]] = {
    "gender": ("female", "male"),
    "eye_colour": EYE_COLOURS,
    "hair_colour": HAIR_COLOURS,
    "hair_cut": HAIR_CUTS,
    "facial_hair": FACIAL_HAIR,
    "glasses": GLASSES,
}


@dataclass(frozen=True)
class DrawnPeople:
    """Photographs of several people.

    Attributes:
        faces: uint8 (N, S, S, 3), RGB.
        ages_years: float64 (N,).
        people: int64 (N,).
        identities: Who is in each picture, N of them.
    """

    faces: np.ndarray
    ages_years: np.ndarray
    people: np.ndarray
    identities: list[Identity]


def draw_people(first: int, last: int, num_ages: int, size_px: int, seed: int) -> DrawnPeople:
    """Draw the people number `first` to `last` - 1, one photograph in each of equal spans of age.

    Args:
        first: The first person.
        last: One after the last.
        num_ages: Photographs of each; the spans part 0 to 100 years.
        size_px: Side of the pictures.
        seed: Of the whole population: the n-th person is the same whichever others are drawn.
    """
    faces, ages, people, identities = [], [], [], []
    for person in range(first, last):
        own_seed = FIRST_SEED + (seed * 1_000_003 + person) * 1_000
        rng = np.random.default_rng([127, seed, person])
        identity = draw_identity(own_seed)
        for k in range(num_ages):
            age = (k + rng.random()) * (100 / num_ages)
            other = rephotograph(identity, own_seed + 1 + k, float(rng.uniform(*_VARIATION)))
            faces.append(_worn(draw_face(other, age, size_px), rng))
            ages.append(age)
            people.append(person)
            identities.append(identity)
    return DrawnPeople(np.stack(faces), np.array(ages), np.array(people, np.int64), identities)


def traits_of(identity: Identity) -> np.ndarray:
    """Return what makes a drawn person this one, float32 (T,): measures, then 0 or 1 per choice."""
    measures = [float(getattr(identity, name)) for name in _MEASURES]
    choices = [
        float(getattr(identity, name) == value)
        for name, values in _CHOICES.items()
        for value in values
    ]
    return np.array(measures + choices, np.float32)


def _worn(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return some pictures degraded, at the size they had."""
    worn, kind = rng.random() < _DEGRADED_SHARE, int(rng.integers(len(_KINDS)))
    if not worn:
        return rgb
    from PIL import Image

    picture = Image.fromarray(degrade(rgb, _KINDS[kind], rng))
    return np.asarray(picture.resize(rgb.shape[:2], Image.Resampling.BICUBIC))
