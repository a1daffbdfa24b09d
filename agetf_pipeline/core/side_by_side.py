"""Batches of a network side by side on a CPU, each on a thread of its own.

Two batches on one core each take no longer than one batch after the other on two, and stay as fast
where other work holds a core up: operators that are split must wait for their slowest part.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

S = TypeVar("S")
T = TypeVar("T")
_ROUNDS_AHEAD = 2
"""Of as many batches as there are threads: none idles while the caller takes a result."""


class Workers:
    """Threads for batches, one core each; see `side_by_side`."""

    def __init__(self, pool: ThreadPoolExecutor | None, num_threads: int) -> None:
        self._pool, self._num_threads = pool, num_threads

    def map(
        self,
        function: Callable[[S], T],
        batches: Iterable[S],
        is_alone: Callable[[S], bool] | None = None,
    ) -> Generator[T, None, None]:
        """Yield `function(batch)` of every batch in order, computed a few batches ahead.

        Args:
            function: Runs a network; called in other threads on a CPU. What torch keeps for each
                thread (inference mode, autocast) it has to set itself.
            batches: Read in the caller's thread as far as is needed; may be another map of the
                same workers.
            is_alone: Of which batches nothing else of this map may run beside them, for the
                memory's sake; they get all threads. None: of none.
        """
        pending: deque[Future[T]] = deque()
        waiting = iter(batches)
        if self._pool is None:
            yield from map(function, waiting)
            return
        try:
            while some := list(islice(waiting, self._num_threads)):
                # Batches that are left over would run on one core while the others idle.
                left_over = len(some) < self._num_threads
                for batch in some:
                    if left_over or (is_alone is not None and is_alone(batch)):
                        while pending:
                            yield pending.popleft().result()
                        _all_threads(self._num_threads)
                        yield function(batch)
                    else:
                        pending.append(self._pool.submit(function, batch))
                while len(pending) > _ROUNDS_AHEAD * self._num_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def side_by_side(device: "torch.device", num_threads: int | None = None) -> Iterator[Workers]:
    """Hold as many threads as torch has, each of which computes on one core.

    Args:
        device: Of the networks; on any but a CPU, everything runs in the caller's thread.
        num_threads: Fewer threads than torch has; None: as many.
    """
    import torch

    had = torch.get_num_threads()
    num_threads = min(had, num_threads or had)
    if device.type != "cpu" or num_threads < 2:
        yield Workers(None, num_threads)
        return
    pool = ThreadPoolExecutor(num_threads, "network", lambda: torch.set_num_threads(1))
    try:
        with pool:
            yield Workers(pool, num_threads)
    finally:
        _all_threads(had)


def map_batches(
    function: Callable[[S], T], batches: Iterable[S], device: "torch.device"
) -> Iterator[T]:
    """Yield `function(batch)` of every batch in order.

    On a CPU as many batches run side by side as torch has threads, each on one of them.

    Args:
        function: As for `Workers.map`.
        batches: All that there are.
        device: Of the network.
    """
    waiting = list(batches)
    with side_by_side(device, len(waiting)) as workers:
        yield from workers.map(function, waiting)


def _all_threads(number: int) -> None:
    """Give torch its threads back: what a worker set for itself holds for libraries below, too."""
    import torch

    torch.set_num_threads(number)
