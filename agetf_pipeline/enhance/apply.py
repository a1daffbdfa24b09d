"""Enhancing pictures: measure, decide, colour, super-resolve, bring to size, measure again."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from agetf_pipeline.config.enhance import EnhanceConfig
from agetf_pipeline.core.side_by_side import side_by_side
from agetf_pipeline.enhance.decide import Decision, decide
from agetf_pipeline.enhance.measures import Measures, measure

if TYPE_CHECKING:
    import torch

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
    """The two networks behind one call; `enhance.assemble` makes one.

    Attributes:
        config: Thresholds and sizes.
        colourise: A batch of uint8 (H, W, 3) of any sizes to the same, coloured. Called in several
            threads, as is `super_resolve`.
        super_resolve: A batch, uint8 (N, H, W, 3), to `scale` times that size.
        device: Of the networks.
        num_coloured: Pictures a call of `colourise`.
        num_resolved: Of a height and width: pictures a call of `super_resolve`; 0: one, beside
            which nothing else is to run.
        num_threads: Calls side by side, at most as many as torch has threads.
        window: Pictures among which those of one size are looked for.
    """

    config: EnhanceConfig
    colourise: Callable[[list[np.ndarray]], list[np.ndarray]]
    super_resolve: Callable[[np.ndarray], np.ndarray]
    device: "torch.device"
    num_coloured: int
    num_resolved: Callable[[int, int], int]
    num_threads: int
    window: int = 32

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
        """Send pictures through the networks that they need, several batches side by side.

        Yields:
            Every picture as soon as it is done, not in the order they came in; `finish` is left.
        """
        with side_by_side(self.device, self.num_threads) as workers:
            coloured = workers.map(self._colour, self._colour_batches(pictures))
            # Closed before the workers are: what leaves early waits for nothing that it queued.
            with closing(coloured):
                batches = self._size_batches(chain.from_iterable(coloured))
                resolved = workers.map(self._resolve, batches, self._is_alone)
                with closing(resolved):
                    yield from chain.from_iterable(resolved)

    def _colour_batches(self, pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
        grey: list[Picture] = []
        for picture in pictures:
            if not picture.decision.colourise:
                yield [picture]
                continue
            grey.append(picture)
            if len(grey) == self.num_coloured:
                yield grey
                grey = []
        if grey:
            yield grey

    def _colour(self, some: list[Picture]) -> list[Picture]:
        if not some[0].decision.colourise:
            return some
        coloured = self.colourise([picture.rgb for picture in some])
        return [replace(picture, rgb=rgb) for picture, rgb in zip(some, coloured, strict=True)]

    def _size_batches(self, pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
        """Put pictures of one size together, of those within a window."""
        waiting: dict[tuple[int, int], list[Picture]] = defaultdict(list)
        for seen, picture in enumerate(pictures, start=1):
            height, width = picture.rgb.shape[:2]
            if picture.decision.super_resolve:
                some = waiting[height, width]
                some.append(picture)
                if len(some) >= self.num_resolved(height, width):
                    yield waiting.pop((height, width))
            else:
                yield [picture]
            if seen % self.window == 0:
                yield from waiting.values()
                waiting.clear()
        yield from waiting.values()

    def _is_alone(self, some: list[Picture]) -> bool:
        picture = some[0]
        return picture.decision.super_resolve and not self.num_resolved(*picture.rgb.shape[:2])

    def _resolve(self, some: list[Picture]) -> list[Picture]:
        if not some[0].decision.super_resolve:
            return some
        outputs = self.super_resolve(np.stack([picture.rgb for picture in some]))
        return [replace(picture, rgb=rgb) for picture, rgb in zip(some, outputs, strict=True)]

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


def bring_to_size(rgb_HW3: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """Resize a uint8 picture: by area where it shrinks, by Lanczos where it grows."""
    height, width = rgb_HW3.shape[:2]
    if (width, height) == (width_px, height_px):
        return rgb_HW3
    how = cv2.INTER_AREA if width >= width_px and height >= height_px else cv2.INTER_LANCZOS4
    return cv2.resize(rgb_HW3, (width_px, height_px), interpolation=how)
