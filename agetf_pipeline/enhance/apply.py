"""Enhancing pictures: measure, decide, colour, super-resolve, bring to size, measure again."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

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
class Enhancer:
    """The two networks behind one call.

    Attributes:
        config: Thresholds and sizes.
        colourise: List of uint8 (H, W, 3) to the same, coloured.
        super_resolve: uint8 (N, H, W, 3) of one size to `scale` times that size.
        scale: Of the super-resolver.
    """

    config: EnhanceConfig
    colourise: Callable[[list[np.ndarray]], list[np.ndarray]]
    super_resolve: Callable[[np.ndarray], np.ndarray]
    scale: int

    def __call__(self, images: list[np.ndarray]) -> list[Enhanced]:
        """Enhance pictures, uint8 (H, W, 3) of any sizes, each by its own decision."""
        before = [measure(image, self.config.target_px) for image in images]
        decisions = [decide(measures, self.config) for measures in before]
        pictures = list(images)
        to_colour = [i for i, decision in enumerate(decisions) if decision.colourise]
        if to_colour:
            coloured = self.colourise([pictures[i] for i in to_colour])
            for i, picture in zip(to_colour, coloured, strict=True):
                pictures[i] = picture
        # Pictures of one size go through the network together.
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, decision in enumerate(decisions):
            if decision.super_resolve:
                by_shape[pictures[i].shape].append(i)
        for _, members in sorted(by_shape.items()):
            outputs = self.super_resolve(np.stack([pictures[i] for i in members]))
            for i, picture in zip(members, outputs, strict=True):
                pictures[i] = picture
        return [self._finish(*parts) for parts in zip(pictures, decisions, before, strict=True)]

    def _finish(self, picture: np.ndarray, decision: Decision, before: Measures) -> Enhanced:
        width, height = decision.output_width_px, decision.output_height_px
        reason = decision.reason
        if decision.super_resolve and width > picture.shape[1]:
            reason += f"; then enlarged by Lanczos from {picture.shape[1]} px to {width} px"
        result = bring_to_size(picture, width, height)
        return Enhanced(result, decision, before, measure(result, self.config.target_px), reason)


def bring_to_size(rgb_HW3: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """Resize a uint8 picture: by area where it shrinks, by Lanczos where it grows."""
    height, width = rgb_HW3.shape[:2]
    if (width, height) == (width_px, height_px):
        return rgb_HW3
    how = cv2.INTER_AREA if width >= width_px and height >= height_px else cv2.INTER_LANCZOS4
    return cv2.resize(rgb_HW3, (width_px, height_px), interpolation=how)
