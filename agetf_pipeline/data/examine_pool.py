"""Examining many files in processes of their own, so that no file can end the run.

A process takes its files one after the other and answers each: when it dies, or takes too long,
the culprit is the first without an answer. It gets one more chance in a new process (the kernel may
have shot it for lack of memory that another program took), and is then rejected as `decoder_crash`.
"""

import contextlib
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from agetf_pipeline.config.ingest import ImageLimits
from agetf_pipeline.core.errors import StageError, StorageError
from agetf_pipeline.data.examine_worker import READY, STORAGE

_START_S = 120.0
_FILES_PER_WORKER = 16
_NUM_ATTEMPTS = 2
_MAX_SENT = 8
"""Requests that a process holds unanswered: it never waits for the next one to arrive."""
_MAX_SENT_BYTES = 16_384  # a path takes 24,576 at most, a pipe holds 65,536
_MAX_AHEAD = 512
# Pools of threads and heaps take address space by the machine's cores: the memory that a process
# may use would mean something else on every machine.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "MALLOC_ARENA_MAX": "2",
}
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Request:
    """One file to examine; `crop_to` is the file for its face, None for aligned sources."""

    path: Path | str
    crop_to: Path | None = None


class ExaminePool:
    """Decoding processes, started when first needed and ended with the `with` block."""

    def __init__(
        self, limits: ImageLimits, face_px: int, num_workers: int, max_decode_s: float
    ) -> None:
        header = limits.model_dump(mode="json", exclude={"max_memory_mib"})
        self._settings = {"limits": header, "face_px": face_px}
        self._max_memory_bytes = limits.memory_mib() << 20
        self._num_workers = num_workers
        self._max_decode_s = max_decode_s
        self._idle: list[_Worker] = []

    def __enter__(self) -> "ExaminePool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._idle:
            worker.stop()
        self._idle.clear()

    def examine(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        """Examine files; see `agetf_pipeline.data.examine_worker.examine` for an answer's fields.

        Returns:
            One answer per request, in their order.

        Raises:
            StageError: The processes cannot be started.
            StorageError: A face cannot be written.
        """
        return list(self.stream(requests))

    def stream(
        self, requests: Iterable[Request], max_ahead: int = _MAX_AHEAD
    ) -> Generator[dict[str, Any]]:
        """Examine files while answers are taken: whoever writes them down keeps nobody waiting.

        Args:
            requests: The files; taken from as the processes go on.
            max_ahead: Files that may be examined beyond the one whose answer is taken next.

        Yields:
            One answer per request, in their order.

        Raises:
            StageError: The processes cannot be started.
            StorageError: A face cannot be written.
        """
        wanted = iter(requests)
        first = list(itertools.islice(wanted, self._num_workers * _FILES_PER_WORKER))
        if not first:
            return
        num_threads = min(self._num_workers, -(-len(first) // _FILES_PER_WORKER))
        work = _Queue(itertools.chain(first, wanted), max_ahead)
        threads = [threading.Thread(target=self._drain, args=(work,)) for _ in range(num_threads)]
        for thread in threads:
            thread.start()
        try:
            yield from work.answers()
        finally:
            # Interrupted (Ctrl-C) or not: leave nothing for the threads to do, and let them end.
            work.close()
            for thread in threads:
                thread.join()

    def _drain(self, work: "_Queue") -> None:
        """Have one process examine files, a few sent ahead, until there are none."""
        worker: _Worker | None = None
        waiting: deque[tuple[int, bytes]] = deque()
        num_failures = 0
        try:
            while True:
                while _has_room(waiting) and (task := work.take(wait=not waiting)) is not None:
                    waiting.append((task[0], self._line(task[1])))
                    if worker is not None:
                        worker.send(waiting[-1][1])
                if not waiting:
                    return
                if worker is None:
                    worker = self._start()
                    for _, line in waiting:
                        worker.send(line)
                answer = worker.answer(self._max_decode_s)
                if isinstance(answer, str):
                    # It held the first one that is unanswered: the others were not begun.
                    worker.stop()
                    worker = None
                    num_failures += 1
                    if num_failures < _NUM_ATTEMPTS:
                        continue
                    answer = {"sha256": None, "reason": "decoder_crash", "detail": answer}
                elif STORAGE in answer:
                    raise StorageError(answer[STORAGE])
                num_failures = 0
                work.put(waiting.popleft()[0], answer)
        except BaseException as error:  # handed to the thread that waits
            work.fail(error)
        finally:
            if worker is None:
                pass
            elif waiting:  # its answers would be taken for others'
                worker.stop()
            else:
                self._idle.append(worker)

    def _start(self) -> "_Worker":
        try:
            return self._idle.pop()
        except IndexError:
            return _Worker(self._max_memory_bytes)

    def _line(self, request: Request) -> bytes:
        line = {
            "path": str(request.path),
            "crop_to": None if request.crop_to is None else str(request.crop_to),
            **self._settings,
        }
        return json.dumps(line).encode() + b"\n"


def _has_room(waiting: Sequence[tuple[int, bytes]]) -> bool:
    """Whether another request may be sent: a full pipe would wait without end for a stuck one."""
    num_bytes = sum(len(line) for _, line in waiting)
    return not waiting or (len(waiting) < _MAX_SENT and num_bytes < _MAX_SENT_BYTES)


class _Queue:
    """Requests that threads take and answers that one takes in order, never far apart.

    The requests come from wherever the one who takes the answers lets them: in its own thread.
    """

    def __init__(self, requests: Iterator[Request], max_ahead: int) -> None:
        self._requests = enumerate(requests)
        self._ready: deque[tuple[int, Request]] = deque()
        self._changed = threading.Condition()
        self._done: dict[int, dict[str, Any]] = {}
        self._max_ahead = max_ahead
        self._num_asked = self._num_given = 0
        self._at_end = False
        self._failure: BaseException | None = None

    def take(self, wait: bool) -> tuple[int, Request] | None:
        """Return the next request with its number; None at the end, or where it is to wait."""
        with self._changed:
            while wait and not self._ready and not self._at_end:
                self._changed.wait()
            return self._ready.popleft() if self._ready else None

    def put(self, number: int, answer: dict[str, Any]) -> None:
        """Take the answer to a request."""
        with self._changed:
            self._done[number] = answer
            if number == self._num_given:
                self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """End all work: whoever waits for answers gets the error."""
        with self._changed:
            self._failure = self._failure or error
            self._end()

    def close(self) -> None:
        """Give out nothing more."""
        with self._changed:
            self._end()

    def answers(self) -> Iterator[dict[str, Any]]:
        """Yield the answers in the order of their requests."""
        while True:
            self._ask()
            with self._changed:
                while self._num_given not in self._done and self._is_awaited():
                    self._changed.wait()
                if self._failure is not None:
                    raise self._failure
                if self._num_given not in self._done:
                    return
                answer = self._done.pop(self._num_given)
                self._num_given += 1
            yield answer

    def _ask(self) -> None:
        """Have requests ready, as many as may be ahead."""
        num_ahead = self._num_asked - self._num_given
        if self._at_end or num_ahead > self._max_ahead // 2:
            return
        some = list(itertools.islice(self._requests, self._max_ahead - num_ahead))
        self._num_asked += len(some)
        with self._changed:
            self._ready.extend(some)
            self._at_end = self._at_end or not some
            self._changed.notify_all()

    def _is_awaited(self) -> bool:
        return self._failure is None and self._num_given < self._num_asked

    def _end(self) -> None:
        self._at_end = True
        self._ready.clear()
        self._changed.notify_all()


class _Worker:
    """One decoding process and the pipes to it."""

    def __init__(self, max_memory_bytes: int) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # A plain start, not multiprocessing: that would run the caller's main module again in each
        # process (Dagster's, a notebook's), which costs seconds and can recurse.
        code = (
            f"import sys; sys.path.append({str(_ROOT)!r}); "
            f"from agetf_pipeline.data.examine_worker import serve; serve({max_memory_bytes})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env={**os.environ, **_ENVIRONMENT},
        )
        self._buffer = b""
        if self._read_line(_START_S) != READY:
            self.stop()
            raise StageError(
                "Expected the decoding process to start; it ended with: "
                f"{self._last_words() or 'no message'}. Check the installation with `make test`."
            )

    def send(self, line: bytes) -> None:
        """Send a request; that the process died, its answer says."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            while line:
                line = line[self._process.stdin.write(line) :]

    def answer(self, timeout_s: float) -> dict[str, Any] | str:
        """Return the next answer, or how the process failed, as a sentence."""
        answer = self._read_line(timeout_s)
        if isinstance(answer, dict):
            return answer
        if self._process.poll() is None and answer is None and not self._at_end:
            return f"Decoding it took more than {timeout_s:g} s (ingest.max_decode_s)."
        self._process.wait()
        code = self._process.returncode
        what = f"signal {-code}" if code < 0 else f"exit status {code}"
        return f"The process that decoded it died twice ({what}). {self._last_words()}".strip()

    def stop(self) -> None:
        """End the process and close the pipes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _read_line(self, timeout_s: float) -> Any:
        """Return the next answer; None at the end of the stream or of the time."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        end_s = time.monotonic() + timeout_s
        self._at_end = False
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, end_s - time.monotonic()))
            if not ready:
                return None
            block = os.read(descriptor, 1 << 16)
            if not block:
                self._at_end = True
                return None
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""
