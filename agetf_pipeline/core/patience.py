"""Waiting with an end, by a clock that stands still while this process is stopped."""

import math
from collections.abc import Iterator

SLICE_S = 5.0
_NUM_SLICES = 8


def slices_of(max_silence_s: float) -> Iterator[float]:
    """Yield seconds to wait for at a time, which together are `max_silence_s`.

    A process that was stopped and goes on (Ctrl-Z and `fg`, a paused container, a machine that
    slept) finds that hours have passed on every clock. Here that counts as one slice: what it waits
    for was stopped, too, and has the others to show a sign of life.
    """
    slice_s = min(SLICE_S, max_silence_s / _NUM_SLICES)
    for _ in range(math.ceil(max_silence_s / slice_s)):
        yield slice_s
