"""Networks over batches, where the memory may not hold what was asked for.

A batch that does not fit is halved, what was done of it is kept, and the size that worked is
remembered for the batches that follow, so that not every one of them fails first. Sums are taken in
another order in smaller batches: the last digits of a result may differ by it, nothing else.
"""

import gc
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from agetf_pipeline.core.devices import is_device_lost, lost_device, says_memory_is_short
from agetf_pipeline.core.errors import AgetfError, StageError

_LOGGER = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """What runs in batches.

    Attributes:
        what: Names it to a person, such as `captioning`; what has another name has other sizes.
        setting: What to lower, such as `predict.batch_size`; empty where no setting does.
        remedy: What else to do where not even one fits, a sentence.
    """

    what: str
    setting: str = ""
    remedy: str = ""


_lock = threading.Lock()
_fitting: dict[str, int] = {}
"""The size that fitted, by what runs; in this process."""
_reports: list[dict[str, str]] = []
"""Of each block that watches now: what was smaller than asked for, by what ran."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short: of a GPU, or of the machine.

    PyTorch has an error of its own for its CUDA allocator alone: of the CPU's, of cuBLAS and of
    cuDNN it raises a RuntimeError with their words.
    """
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError | OSError):
        return False
    return says_memory_is_short(str(error))


def in_batches(
    function: Callable[[slice], T], num: int, batch_size: int, work: Work
) -> Iterator[tuple[slice, T]]:
    """Run a function over rows, `batch_size` at a time, fewer where the memory does not hold them.

    Args:
        function: Takes rows; called again for halves of what did not fit, so it must not count.
        num: Rows in all.
        batch_size: Rows of a batch, at least one.
        work: What it is.

    Yields:
        The rows and the result of each batch, in order; the rows together are all of them.

    Raises:
        StageError: The memory does not hold a single row.
        DeviceLostError: The device is gone.
    """
    start = 0
    while start < num:
        size = _size_of(work, batch_size, num - start)
        rows = slice(start, min(num, start + size))
        try:
            result = function(rows)
        except Exception as error:
            if is_device_lost(error):
                raise lost_device(error) from error
            if not is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {_first_line(error)}"
            if rows.stop - rows.start == 1:
                raise too_little_memory(error, work) from error
        else:
            yield rows, result
            start = rows.stop
            continue
        # Outside of the handler, whose traceback keeps the tensors of the failed attempt alive.
        release_memory()
        _halve(work, batch_size, rows.stop - rows.start, reason)


def too_little_memory(error: BaseException, work: Work) -> StageError:
    """Return the error to raise where not even one row fits."""
    remedy = f"{work.remedy} " if work.remedy else ""
    return StageError(
        f"Expected memory for {work.what}, one at a time; found too little: {_first_line(error)}. "
        f"{remedy}Close other programs on the device, or set runtime.device=cpu. What was finished "
        "is kept: run this again."
    )


def release_memory() -> None:
    """Give back what nobody uses any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        with suppress(RuntimeError):  # of a lost device, which the next batch will say better
            torch.cuda.empty_cache()


@contextmanager
def watching(what: str) -> Iterator[Callable[[], list[str]]]:
    """Say clearly how memory and devices failed a piece of work.

    Args:
        what: The work, such as `predict caf/shard-0001`.

    Yields:
        A function that says, in sentences, which batches were smaller than asked for while the
        block ran: its own, those of blocks within it, and of others that run at the same time.

    Raises:
        DeviceLostError: The block failed because its GPU is gone.
        StageError: It failed because memory was short where nothing could be halved.
    """
    said: dict[str, str] = {}
    with _lock:
        _reports.append(said)
    try:
        yield lambda: [said[name] for name in sorted(said)]
    except AgetfError:
        raise
    except Exception as error:
        if is_device_lost(error):
            raise lost_device(error) from error
        if is_out_of_memory(error):
            raise StageError(
                f"Expected memory for {what}; found too little: {_first_line(error)}. Close other "
                "programs on the machine or the GPU, or lower the batch sizes of the stage. What "
                "was finished is kept: run this again."
            ) from error
        raise
    finally:
        with _lock:
            # Not `remove`, which would take another one that says the same.
            _reports[:] = [report for report in _reports if report is not said]


def forget_sizes() -> None:
    """Forget which sizes fitted: whatever held the memory may be gone."""
    with _lock:
        _fitting.clear()
        for said in _reports:
            said.clear()


def _size_of(work: Work, batch_size: int, num_left: int) -> int:
    with _lock:
        fitting = _fitting.get(work.what, batch_size)
        if fitting < min(batch_size, num_left):
            _say(work, batch_size, fitting)
        return max(1, min(batch_size, fitting))


def _halve(work: Work, batch_size: int, tried: int, reason: str) -> None:
    half = -(-tried // 2)
    with _lock:
        # Of several threads that failed at one size, the first one says it.
        if half >= _fitting.get(work.what, batch_size):
            return
        _fitting[work.what] = half
        _say(work, batch_size, half)
    advice = f" Set {work.setting}={half} to be spared the attempt." if work.setting else ""
    _LOGGER.warning(
        "%s: %d at once do not fit the memory (%s); going on with %d.%s",
        work.what, tried, reason, half, advice,
    )  # fmt: skip


def _say(work: Work, batch_size: int, fitting: int) -> None:
    advice = f" (see {work.setting})" if work.setting else ""
    sentence = (
        f"{work.what}: {batch_size} at once did not fit the memory; {fitting} at a time did"
        f"{advice}. The last digits may differ by it."
    )
    for said in _reports:
        said[work.what] = sentence


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]
