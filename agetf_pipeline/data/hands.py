"""The processes that a leader starts on its own machine, for the chunks of one table."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess

from agetf_pipeline.core.parallel import (
    LOOK_EVERY_S,
    MAX_SILENCE_S,
    SignsOfLife,
    hanging,
    interrupt,
    kill,
)

_LOGGER = logging.getLogger(__name__)
_LEAVING_S = 0.5


@dataclass
class Hands:
    """Workers of this machine that join what this process leads.

    Attributes:
        num_workers: Processes, this one included.
        start: Starts the worker of a number, from 1; None: there are none.
        max_silence_s: How long nobody may show a sign of work.
    """

    num_workers: int = 1
    start: Callable[[int], BaseProcess] | None = None
    max_silence_s: float = MAX_SILENCE_S
    _workers: list[BaseProcess] = field(default_factory=list)
    _signs: SignsOfLife | None = None
    _looked_s: float = 0.0

    @contextmanager
    def hired(self, num_chunks: int) -> Iterator[None]:
        """Start workers, not more than there are chunks, and end them with the block."""
        num = min(self.num_workers, num_chunks) - 1
        self._signs = SignsOfLife(self.max_silence_s)
        self._looked_s = time.monotonic()
        try:
            if self.start is not None:
                for number in range(1, num + 1):
                    self._workers.append(self.start(number))
            yield
            # There is no board any more: who has not left yet has nothing in work.
            for worker in self._workers:
                worker.join(_LEAVING_S)
                if worker.exitcode:
                    _LOGGER.warning(
                        "a worker of %d ended early (exit code %d); the others did its chunks",
                        self.num_workers, worker.exitcode,
                    )  # fmt: skip
            kill(self._workers)
        except BaseException:
            interrupt(self._workers)
            raise
        finally:
            for worker in self._workers:
                worker.close()
            self._workers.clear()

    def are_at_work(self) -> bool:
        """Whether one of them is there, and has shown a sign of work.

        Raises:
            UnavailableError: They hang; they were ended.
        """
        there = [worker for worker in self._workers if worker.is_alive()]
        if not there:
            return False
        assert self._signs is not None
        now_s = time.monotonic()
        if now_s - self._looked_s < min(LOOK_EVERY_S, self.max_silence_s / 4):
            return True
        self._looked_s = now_s
        if not self._signs.seen(worker.pid for worker in there if worker.pid is not None):
            kill(there)
            raise hanging(f"{len(there)} workers", self.max_silence_s)
        return True


_hands: ContextVar[Hands | None] = ContextVar("hands", default=None)


def current_hands() -> Hands | None:
    """Return who helps in this context."""
    return _hands.get()


@contextmanager
def with_hands(hands: Hands | None) -> Iterator[None]:
    """Let tables that are updated in the block be computed with this help."""
    token = _hands.set(hands)
    try:
        yield
    finally:
        _hands.reset(token)
