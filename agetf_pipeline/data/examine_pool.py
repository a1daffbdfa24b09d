"""Examining many files in processes of their own, so that no file can end the run.

A process holds one file at a time: when it dies, or takes too long, the culprit is known without
any search. It gets one more chance in a new process (the kernel may have shot it for lack of
memory that another program took), and is then rejected as `decoder_crash`.
"""

import json
import os
import queue
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
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

    path: Path
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
        answers: list[dict[str, Any] | None] = [None] * len(requests)
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(requests)):
            todo.put(index)
        num_threads = min(self._num_workers, -(-len(requests) // _FILES_PER_WORKER))
        failures: list[BaseException] = []
        threads = [
            threading.Thread(target=self._drain, args=(requests, todo, answers, failures))
            for _ in range(num_threads)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            # Interrupted (Ctrl-C): leave nothing for the threads to do, and let them end.
            while not todo.empty():
                todo.get()
            for thread in threads:
                thread.join()
            raise
        if failures:
            raise failures[0]
        done = [answer for answer in answers if answer is not None]
        assert len(done) == len(requests)
        return done

    def _drain(
        self,
        requests: Sequence[Request],
        todo: "queue.SimpleQueue[int]",
        answers: list[dict[str, Any] | None],
        failures: list[BaseException],
    ) -> None:
        worker: _Worker | None = None
        try:
            while not failures:
                try:
                    index = todo.get_nowait()
                except queue.Empty:
                    break
                worker, answers[index] = self._examine_one(worker, requests[index])
        except BaseException as error:  # handed to the thread that waits
            failures.append(error)
        finally:
            if worker is not None:
                self._idle.append(worker)

    def _examine_one(
        self, worker: "_Worker | None", request: Request
    ) -> "tuple[_Worker | None, dict[str, Any]]":
        line = {
            "path": str(request.path),
            "crop_to": None if request.crop_to is None else str(request.crop_to),
            **self._settings,
        }
        how = ""
        for _ in range(_NUM_ATTEMPTS):
            if worker is None:
                worker = self._idle.pop() if self._idle else _Worker(self._max_memory_bytes)
            answer = worker.ask(line, self._max_decode_s)
            if isinstance(answer, dict) and STORAGE in answer:
                worker.stop()
                raise StorageError(answer[STORAGE])
            if isinstance(answer, dict):
                return worker, answer
            how = answer
            worker.stop()
            worker = None
        return None, {"sha256": None, "reason": "decoder_crash", "detail": how}


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
            env={**os.environ, **_ENVIRONMENT},
        )
        self._buffer = b""
        if self._read_line(_START_S) != READY:
            self.stop()
            raise StageError(
                "Expected the decoding process to start; it ended with: "
                f"{self._last_words() or 'no message'}. Check the installation with `make test`."
            )

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any] | str:
        """Return the answer, or how the process failed, as a sentence."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._read_line(timeout_s)
        except BrokenPipeError:
            answer = None
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
