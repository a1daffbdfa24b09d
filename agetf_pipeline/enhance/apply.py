"""Enhancing pictures: measure, decide, colour, super-resolve, bring to size, measure again."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import cv2
import numpy as np

from agetf_pipeline.config.enhance import EnhanceConfig
from agetf_pipeline.enhance.decide import Decision, decide
from agetf_pipeline.enhance.measures import Measures, measure

CODE_VERSION = "1"


@dataclass(frozen=True)
class Enhanced:
    """One enhanced picture.

    Attributes:
        rgb: uint8 (H, W, 3).
        decision: What was done, and why; its reason says more than the decision's where needed.
        before: Measures of the original.
        after: Measures of the result.
        reason: For a person.
    """

    rgb: np.ndarray
    decision: Decision
    before: Measures
    after: Measures
    reason: str


@dataclass(frozen=True)
class Picture:
    """A picture on its way: as decoded, then as the networks left it.

    Attributes:
        key: Whatever names it to the caller.
        rgb: uint8 (H, W, 3).
        before: Measures of the original.
        decision: What it needs.
    """

    key: Any
    rgb: np.ndarray
    before: Measures
    decision: Decision


@dataclass(frozen=True)
class Enhancer:
    """The two networks behind one call.

    Attributes:
        config: Thresholds and sizes.
        colourise: List of uint8 (H, W, 3) to the same, coloured.
        super_resolve: uint8 (N, H, W, 3) of one size to `scale` times that size.
        scale: Of the super-resolver.
        window: Pictures that are held together, so that those of one size form batches.
        at_once: Pictures a call of a network's function; results go on after each.
    """

    config: EnhanceConfig
    colourise: Callable[[list[np.ndarray]], list[np.ndarray]]
    super_resolve: Callable[[np.ndarray], np.ndarray]
    scale: int
    window: int = 32
    at_once: int = 8

    def __call__(self, images: list[np.ndarray]) -> list[Enhanced]:
        """Enhance pictures, uint8 (H, W, 3) of any sizes, each by its own decision."""
        looked_at = (self.look(i, image) for i, image in enumerate(images))
        done = {picture.key: self.finish(picture) for picture in self.stream(looked_at)}
        return [done[i] for i in range(len(images))]

    def look(self, key: Any, rgb_HW3: np.ndarray) -> Picture:
        """Measure a picture and decide what it needs."""
        before = measure(rgb_HW3, self.config.target_px)
        return Picture(key, rgb_HW3, before, decide(before, self.config))

    def stream(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Send pictures through the networks that they need.

        Yields:
            Every picture as soon as it is done, not in the order they came in; `finish` is left.
        """
        waiting = iter(pictures)
        while window := list(islice(waiting, self.window)):
            # Pictures of one size go through the network together.
            by_shape: dict[tuple[int, ...], list[Picture]] = defaultdict(list)
            for picture in self._coloured(window):
                if picture.decision.super_resolve:
                    by_shape[picture.rgb.shape].append(picture)
                else:
                    yield picture
            for _, members in sorted(by_shape.items()):
                for some in _slices(members, self.at_once):
                    outputs = self.super_resolve(np.stack([picture.rgb for picture in some]))
                    for picture, rgb in zip(some, outputs, strict=True):
                        yield replace(picture, rgb=rgb)

    def _coloured(self, pictures: list[Picture]) -> Iterator[Picture]:
        yield from (picture for picture in pictures if not picture.decision.colourise)
        grey = [picture for picture in pictures if picture.decision.colourise]
        for some in _slices(grey, self.at_once):
            coloured = self.colourise([picture.rgb for picture in some])
            for picture, rgb in zip(some, coloured, strict=True):
                yield replace(picture, rgb=rgb)

    def finish(self, picture: Picture) -> Enhanced:
        """Bring a picture that went through the networks to its size, and measure it again."""
        decision = picture.decision
        width, height = decision.output_width_px, decision.output_height_px
        reason = decision.reason
        if decision.super_resolve and width > picture.rgb.shape[1]:
            reason += f"; then enlarged by Lanczos from {picture.rgb.shape[1]} px to {width} px"
        rgb = bring_to_size(picture.rgb, width, height)
        after = measure(rgb, self.config.target_px)
        return Enhanced(rgb, decision, picture.before, after, reason)


def _slices(pictures: list[Picture], size: int) -> Iterator[list[Picture]]:
    for start in range(0, len(pictures), size):
        yield pictures[start : start + size]


def bring_to_size(rgb_HW3: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """Resize a uint8 picture: by area where it shrinks, by Lanczos where it grows."""
    height, width = rgb_HW3.shape[:2]
    if (width, height) == (width_px, height_px):
        return rgb_HW3
    how = cv2.INTER_AREA if width >= width_px and height >= height_px else cv2.INTER_LANCZOS4
    return cv2.resize(rgb_HW3, (width_px, height_px), interpolation=how)
