"""Drawn faces to try the app with, for whoever has no photograph at hand."""

from dataclasses import dataclass
from functools import cache

import numpy as np

_PEOPLE: tuple[tuple[int, float], ...] = ((3, 8), (11, 24), (17, 33), (29, 47), (42, 62), (58, 78))
"""Seed of the person, and age in years."""
_SIZE_PX = 256


@dataclass(frozen=True)
class Example:
    """A drawn face.

    Attributes:
        caption: What a person reads under it.
        rgb: uint8 (256, 256, 3), RGB, aligned already.
    """

    caption: str
    rgb: np.ndarray


@cache
def examples() -> tuple[Example, ...]:
    """Return the examples, drawn at the first call and kept."""
    from agetf_pipeline.synthetic.faces import draw_face, draw_identity

    return tuple(
        Example(f"{age:g} years", draw_face(draw_identity(seed), age, _SIZE_PX))
        for seed, age in _PEOPLE
    )
