"""Batches read ahead of the training step, by a thread or by processes, in the order of the steps.

A batch is a function of its step (`Sampler.draw`), so that who reads it changes nothing. What goes
from process to process, and to the device, is 8-bit pictures; they become numbers on the device.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import numpy as np
import torch
from torch import Tensor

from agetf_pipeline.core.background import map_ahead
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.parallel import (
    LOOK_EVERY_S,
    MAX_SILENCE_S,
    SignsOfLife,
    hanging,
    kill,
    prepare_worker,
)
from agetf_pipeline.training.dataset import Batch, Sampler
from agetf_pipeline.training.vlm_guidance import VlmGuidance

NUM_AHEAD = 3
"""Batches that wait, for each that reads."""
_VLM = "vlm"


@dataclass(frozen=True)
class BatchReader:
    """Reads all that a step needs from disk. It is what worker processes are given.

    Attributes:
        sampler: Draws the batches.
        vlm: What a vision-language model says of each image, or None.
        vlm_dropout: Share of images whose guidance is left out.
        seed: Of the guidance that is left out.
        rows: Rows of each batch that this process takes, int64; None: all.
    """

    sampler: Sampler
    vlm: VlmGuidance | None = None
    vlm_dropout: float = 0.0
    seed: int = 0
    rows: np.ndarray | None = None

    def read(self, step: int) -> dict[str, np.ndarray]:
        """Return the batch of a step, by the names of `Batch`, and `vlm` where there is guidance.

        `vlm` is float32 (B, D), with rows of NaN where it is left out or an image has none.
        """
        batch = self.sampler.draw(step, self.rows)
        arrays = dict(vars(batch))
        if self.vlm is not None:
            vectors_BD = self.vlm.of(batch.indices)
            vectors_BD[self._dropped(step)] = np.nan
            arrays[_VLM] = vectors_BD
        return arrays

    def _dropped(self, step: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        # Drawn for the whole batch, so that several processes leave out what one would.
        dropped = torch.rand(self.sampler.batch_size, generator=generator) < self.vlm_dropout
        return dropped.numpy() if self.rows is None else dropped.numpy()[self.rows]


@dataclass(frozen=True)
class Loaded:
    """A batch that was read: pinned where it goes to a GPU.

    Attributes:
        step: Its step.
        tensors: What `BatchReader.read` returned, as tensors.
    """

    step: int
    tensors: dict[str, Tensor]

    @property
    def batch(self) -> Batch:
        """The batch as arrays, without a copy."""
        return Batch(**{name: t.numpy() for name, t in self.tensors.items() if name != _VLM})


@dataclass(frozen=True)
class DeviceBatch:
    """A batch on the device, as numbers; the names and shapes are those of `StepData`."""

    source: Tensor
    ages: Tensor
    target: Tensor
    has_target: Tensor
    variance: Tensor
    vlm: Tensor | None


def batches(
    reader: BatchReader,
    first_step: int,
    last_step: int,
    num_workers: int = 1,
    pin_memory: bool = False,
    max_silence_s: float = MAX_SILENCE_S,
) -> Generator[Loaded]:
    """Yield the batches of steps `first_step` up to, not including, `last_step`, in order.

    Close the generator (`contextlib.closing`) when leaving early: that ends the workers at once.

    Args:
        reader: What reads a batch.
        first_step: Step of the first batch.
        last_step: Step after the last batch.
        num_workers: 0 or 1: a thread of this process; more: so many processes, which end with this
            one however it dies.
        pin_memory: Whether the batches go to a GPU.
        max_silence_s: Processes that use no CPU for so long hang, and a thread that takes longer
            for a batch.

    Raises:
        StageError: A worker process was killed.
        UnavailableError: Worker processes hang (none is left), or a disk does.
        Exception: What reading a batch raised, where that batch would have come.
    """
    steps = range(first_step, last_step)
    if num_workers > 1:
        yield from _by_processes(reader, steps, num_workers, pin_memory, max_silence_s)
        return

    def read(step: int) -> Loaded:
        return _loaded(step, reader.read(step), pin_memory)

    with closing(map_ahead(read, steps, NUM_AHEAD, max_silence_s)) as ahead:
        yield from ahead


def to_device(loaded: Loaded, device: torch.device) -> DeviceBatch:
    """Move a batch to the device while that may still compute, and make its pictures numbers."""
    there = {name: t.to(device, non_blocking=True) for name, t in loaded.tensors.items()}
    has_target = there["has_target"]
    counts_B = has_target.sum(dim=1)
    target = torch.zeros(
        (*has_target.shape, *there["pictures"].shape[1:]), dtype=torch.uint8, device=device
    )
    # Rows by their number, counted here: a boolean index would make the host wait for the device.
    where = torch.from_numpy(np.flatnonzero(loaded.tensors["has_target"].numpy())).to(
        device, non_blocking=True
    )
    target.flatten(0, 1)[where] = there["pictures"]
    sources = there["pictures"][torch.cumsum(counts_B, 0) - counts_B]
    return DeviceBatch(
        _to_numbers(sources), there["ages_years"], _to_numbers(target),
        has_target.float(), there["variances_years2"], there.get(_VLM),
    )  # fmt: skip


def _to_numbers(faces_HWC: Tensor) -> Tensor:
    """Return uint8 faces (..., S, S, 3) as float32 (..., 3, S, S), -1 to 1."""
    return faces_HWC.movedim(-1, -3) / 127.5 - 1


def _loaded(step: int, arrays: dict[str, np.ndarray], pin_memory: bool) -> Loaded:
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    return Loaded(step, {n: t.pin_memory() for n, t in tensors.items()} if pin_memory else tensors)


_OF_WORKER: list[BatchReader] = []
"""The reader of a worker process: sent once, when it starts."""


def _start_worker(parent: int, reader: BatchReader) -> None:
    prepare_worker(parent)
    _OF_WORKER.append(reader)


def _read_in_worker(step: int) -> dict[str, np.ndarray]:
    return _OF_WORKER[0].read(step)


def _by_processes(
    reader: BatchReader, steps: range, num_workers: int, pin_memory: bool, max_silence_s: float
) -> Generator[Loaded]:
    others = set(multiprocessing.active_children())
    # Spawned, not forked: a fork of a process whose thread pools have run, or that holds a GPU,
    # can hang. Batches come through a pipe: /dev/shm is small in many containers.
    pool = ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn"), _start_worker, (os.getpid(), reader)
    )
    pending: deque[tuple[int, Future[dict[str, np.ndarray]]]] = deque()
    try:
        for step in steps:
            pending.append((step, pool.submit(_read_in_worker, step)))
            if len(pending) > NUM_AHEAD * num_workers:
                yield _next_of(pending, others, pin_memory, max_silence_s)
        while pending:
            yield _next_of(pending, others, pin_memory, max_silence_s)
    except BrokenProcessPool as error:
        raise StageError(
            f"Expected {num_workers} processes that read batches; found that one was killed "
            f"({error}). Where memory ran out, lower train.num_loader_workers (1: a thread of the "
            "training process)."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _next_of(
    pending: deque[tuple[int, Future[dict[str, np.ndarray]]]],
    others: set[BaseProcess],
    pin_memory: bool,
    max_silence_s: float,
) -> Loaded:
    step, future = pending.popleft()
    signs = SignsOfLife(max_silence_s)
    while not wait([future], min(LOOK_EVERY_S, max_silence_s / 4)).done:
        workers = set(multiprocessing.active_children()) - others
        if not signs.seen(worker.pid for worker in workers if worker.pid is not None):
            kill(workers)  # before the pool is shut down, which waits for them
            raise hanging(f"{len(workers)} processes that read batches", max_silence_s)
    return _loaded(step, future.result(), pin_memory)
