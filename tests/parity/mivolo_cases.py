"""The networks and pictures of the comparison with the official MiVOLO, and their golden values."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from seeded_arrays import seeded_picture

HEAD_GAIN = 0.25
"""Scale of both heads: large enough that ages lie years apart, small enough for 0 to 100."""


@dataclass(frozen=True)
class Case:
    """One published form of the network.

    Attributes:
        input_px: Side of the input.
        num_outputs: 3 with gender, 1 with the age alone.
        with_body: Whether it reads a body beside the face.
        pictures: Height and width of the face and of the body (None: missing), per person.
    """

    input_px: int
    num_outputs: int
    with_body: bool
    pictures: tuple[tuple[tuple[int, int], tuple[int, int] | None], ...]

    def faces(self) -> list[np.ndarray]:
        """Face crops, uint8 (H, W, 3) RGB."""
        sizes = [face for face, _ in self.pictures]
        return [seeded_picture(f"a face {i}", *size) for i, size in enumerate(sizes)]

    def bodies(self) -> list[np.ndarray | None]:
        """Body crops, uint8 (H, W, 3) RGB, None where missing."""
        sizes = [body for _, body in self.pictures]
        return [
            None if size is None else seeded_picture(f"a body {i}", *size)
            for i, size in enumerate(sizes)
        ]


CASES: dict[str, Case] = {
    "face_224": Case(224, 3, False, (((224, 224), None), ((301, 240), None), ((90, 131), None))),
    "face_age_only_224": Case(
        224, 1, False, (((180, 180), None), ((97, 64), None), ((224, 222), None))
    ),
    "face_body_224": Case(
        224, 3, True, (((224, 224), (500, 211)), ((150, 119), None), ((64, 64), (224, 224)))
    ),
    "face_body_384": Case(384, 3, True, (((200, 163), (640, 250)), ((384, 384), None))),
}

CHECKPOINT: dict[str, Any] = {"min_age": 1, "max_age": 95, "avg_age": 48.0}
"""What the checkpoints say beside their weights, in the files' own words."""
GAINS: dict[str, float] = {"head.weight": HEAD_GAIN, "aux_head.weight": HEAD_GAIN}
