"""Work done a little ahead, in a thread of its own: decoding while the networks compute."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def map_ahead(
    function: Callable[[S], T], items: Iterable[S], num_ahead: int = 2
) -> Generator[T, None, None]:
    """Yield `function(item)` of every item in order, computed up to `num_ahead` items ahead.

    What is not yet asked for is bounded, however long `items` is. An exception of `function` is
    raised where its result would have come.

    Args:
        function: Runs in one other thread, one item after the other.
        items: Read in the caller's thread.
        num_ahead: Results that may wait.
    """
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > num_ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
