"""Work done a little ahead, in threads of its own: decoding while the networks compute."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from typing import TypeVar

from agetf_pipeline.core.errors import UnavailableError
from agetf_pipeline.core.patience import slices_of

S = TypeVar("S")
T = TypeVar("T")
_GRACE_S = 10.0
"""How long whoever leaves early waits for the item in work."""


class _SilentError(Exception):
    """A result did not come in time."""


def _result_within(max_silence_s: float | None, future: Future[T]) -> T:
    """Return a result, or raise what was raised in its place.

    Raises:
        _SilentError: It did not come in time. (A TimeoutError could be the function's own.)
    """
    if max_silence_s is None:
        return future.result()
    for slice_s in slices_of(max_silence_s):
        if wait([future], slice_s).done:
            return future.result()
    raise _SilentError


def map_ahead(
    function: Callable[[S], T],
    items: Iterable[S],
    num_ahead: int = 2,
    max_silence_s: float | None = None,
    num_threads: int = 1,
) -> Generator[T, None, None]:
    """Yield `function(item)` of every item in order, computed up to `num_ahead` items ahead.

    What is not yet asked for is bounded, however long `items` is. An exception of `function` is
    raised where its result would have come. Whoever leaves early waits a moment for the item in
    work, which may hang.

    Args:
        function: Runs in other threads; in one, one item after the other.
        items: Read in the caller's thread.
        num_ahead: Results that may wait.
        max_silence_s: How long an item may take while this process runs; None: for ever.
        num_threads: Threads that take items. More than `num_ahead` + 1 would idle.

    Raises:
        UnavailableError: An item took longer. Its thread is left behind: nobody can end one that
            waits for a disk, but the process can end without it.
    """
    pending: deque[Future[T]] = deque()
    waiting: queue.SimpleQueue[tuple[Future[T], S] | None] = queue.SimpleQueue()
    # A daemon: the threads of an executor are waited for at the end of the process.
    threads = [
        threading.Thread(target=_work, args=(function, waiting), name="ahead", daemon=True)
        for _ in range(num_threads)
    ]
    for thread in threads:
        thread.start()
    hangs = False
    try:
        for item in items:
            pending.append(Future())
            waiting.put((pending[-1], item))
            if len(pending) > num_ahead:
                yield _result_within(max_silence_s, pending.popleft())
        while pending:
            yield _result_within(max_silence_s, pending.popleft())
    except _SilentError as error:
        hangs = True
        raise UnavailableError(
            f"Expected the next item of work within {max_silence_s:g} s; found the thread that "
            "reads ahead still at it: a disk does not answer. See that the folders of the "
            "workspace do, and run this again. For items that take longer, raise "
            "runtime.max_silence_s."
        ) from error
    finally:
        for future in pending:
            future.cancel()
        for _ in threads:
            waiting.put(None)
        grace_s = _GRACE_S if max_silence_s is None else min(_GRACE_S, max_silence_s)
        ends_s = time.monotonic() + grace_s
        for thread in () if hangs else threads:
            thread.join(max(0.0, ends_s - time.monotonic()))


def _work(
    function: Callable[[S], T], waiting: "queue.SimpleQueue[tuple[Future[T], S] | None]"
) -> None:
    while (found := waiting.get()) is not None:
        future, item = found
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(function(item))
        except BaseException as error:  # it is raised where the result is asked for
            future.set_exception(error)
        del future, found, item
