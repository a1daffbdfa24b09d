"""Progress of long work: a bar on a terminal, log lines elsewhere, and a hook for Dagster."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

_LOGGER = logging.getLogger(__name__)
_LOG_EVERY_S = 10.0

T = TypeVar("T")


@dataclass(frozen=True)
class ProgressEvent:
    """How far a piece of work is. `num_total` is None where it is not known."""

    description: str
    num_done: int
    num_total: int | None
    elapsed_s: float
    detail: str = ""

    @property
    def rate_per_s(self) -> float:
        """Items per second since the start."""
        return self.num_done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def remaining_s(self) -> float | None:
        """Estimated seconds to the end, None where it cannot be said."""
        if self.num_total is None or self.rate_per_s <= 0:
            return None
        return (self.num_total - self.num_done) / self.rate_per_s

    def __str__(self) -> str:
        total = "?" if self.num_total is None else str(self.num_total)
        left = "" if self.remaining_s is None else f", {self.remaining_s:.0f} s left"
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.description}: {self.num_done}/{total}, {self.rate_per_s:.1f}/s{left}{detail}"


_listener: ContextVar[Callable[[ProgressEvent], None] | None] = ContextVar(
    "progress_listener", default=None
)


@contextmanager
def progress_listener(listener: Callable[[ProgressEvent], None]) -> Iterator[None]:
    """Send the progress events of this context to `listener` (Dagster's event log, say)."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def relay(event: ProgressEvent) -> None:
    """Report what another process counted, as if it had been counted here."""
    _LOGGER.info("%s", event)
    listener = _listener.get()
    if listener is not None:
        listener(event)


class Progress:
    """Counter that shows how far a piece of work is; used by `track` or in a `with` block.

    Args:
        description: Of the work.
        num_total: Where it is known.
        shown: Whether to show anything; of several processes that do one work, the first does.
    """

    def __init__(self, description: str, num_total: int | None = None, shown: bool = True) -> None:
        self._shown = shown
        self._description = description
        self._num_total = num_total
        self._num_done = 0
        self._start_s = time.monotonic()
        self._last_log_s = self._start_s
        self._bar = None

    def __enter__(self) -> "Progress":
        if self._shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(*Bar.get_default_columns(), console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._description, total=self._num_total)
        return self

    def __exit__(self, *_: object) -> None:
        self._report(force=True)
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int = 1, detail: str = "", force: bool = False) -> None:
        """Say that `count` more items are done; `detail` is a short text such as the loss.

        Reports are some seconds apart; `force` makes one now.
        """
        self._num_done += count
        if self._bar is not None:
            text = f"{self._description} {detail}".strip()
            self._bar.update(self._task, advance=count, description=text)
        self._report(detail=detail, force=force)

    def _report(self, detail: str = "", force: bool = False) -> None:
        now_s = time.monotonic()
        if not self._shown:
            return
        if not force and now_s - self._last_log_s < _LOG_EVERY_S:
            return
        self._last_log_s = now_s
        event = ProgressEvent(
            self._description, self._num_done, self._num_total, now_s - self._start_s, detail
        )
        if self._bar is None:
            relay(event)
        elif (listener := _listener.get()) is not None:
            listener(event)


def track(items: Iterable[T], description: str, num_total: int | None = None) -> Iterator[T]:
    """Iterate over `items`, showing progress; the total is taken from `len` where there is one."""
    if num_total is None and hasattr(items, "__len__"):
        num_total = len(items)  # type: ignore[arg-type]
    with Progress(description, num_total) as progress:
        for item in items:
            yield item
            progress.advance()
