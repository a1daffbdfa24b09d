"""Batches of a network side by side on a CPU, each on a thread of its own.

Two batches on one core each take no longer than one batch after the other on two, and stay as fast
where other work holds a core up: operators that are split must wait for their slowest part.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

S = TypeVar("S")
T = TypeVar("T")


def map_batches(
    function: Callable[[S], T], batches: Iterable[S], device: "torch.device"
) -> Iterator[T]:
    """Yield `function(batch)` of every batch in order.

    On a CPU as many batches run side by side as torch has threads, each on one of them.

    Args:
        function: Runs a network; called in other threads on a CPU. What torch keeps for each
            thread (inference mode, autocast) it has to set itself.
        batches: All that there are.
        device: Of the network.
    """
    import torch

    waiting = list(batches)
    num_threads = torch.get_num_threads()
    num_workers = min(num_threads, len(waiting))
    if device.type != "cpu" or num_workers < 2:
        yield from map(function, waiting)
        return
    # Batches that are left over would run on one core while the others idle.
    together = len(waiting) - len(waiting) % num_workers
    pool = ThreadPoolExecutor(num_workers, "network", lambda: torch.set_num_threads(1))
    try:
        with pool:
            yield from pool.map(function, waiting[:together])
    finally:
        torch.set_num_threads(num_threads)
    yield from map(function, waiting[together:])
