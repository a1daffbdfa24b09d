"""Batches read ahead of the training step, by a thread or by processes, in the order of the steps.

A batch is a function of its step (`Sampler.draw`), so that who reads it changes nothing. What goes
from process to process, and to the device, is 8-bit pictures; they become numbers on the device.
"""

import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from agetf_pipeline.core.background import map_ahead
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.parallel import prepare_worker
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

    def read(self, step: int) -> dict[str, Tensor]:
        """Return the batch of a step as tensors, by the names of `Batch` and `vlm`."""
        batch = self.sampler.draw(step, self.rows)
        tensors = {name: torch.from_numpy(value) for name, value in vars(batch).items()}
        if self.vlm is not None:
            vectors_BD = torch.from_numpy(self.vlm.of(batch.indices))
            vectors_BD[self._dropped(step, len(vectors_BD))] = float("nan")
            tensors[_VLM] = vectors_BD
        return tensors

    def _dropped(self, step: int, num_rows: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        # Drawn for the whole batch, so that several processes leave out what one would.
        size = num_rows if self.rows is None else self.sampler.batch_size
        dropped = torch.rand(size, generator=generator) < self.vlm_dropout
        return dropped if self.rows is None else dropped[torch.from_numpy(self.rows)]


@dataclass(frozen=True)
class Loaded:
    """A batch that was read: pinned where it goes to a GPU.

    Attributes:
        step: Its step.
        tensors: What `BatchReader.read` returned.
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

    Raises:
        StageError: A worker process was killed.
        Exception: What reading a batch raised, where that batch would have come.
    """
    steps = range(first_step, last_step)
    if num_workers > 1:
        yield from _by_processes(reader, steps, num_workers, pin_memory)
        return

    def read(step: int) -> dict[str, Tensor]:
        tensors = reader.read(step)
        return {name: t.pin_memory() for name, t in tensors.items()} if pin_memory else tensors

    with closing(map_ahead(read, steps, NUM_AHEAD)) as ahead:
        for step, tensors in zip(steps, ahead, strict=True):
            yield Loaded(step, tensors)


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


class _Steps(Dataset[dict[str, Tensor]]):
    def __init__(self, reader: BatchReader, steps: Sequence[int]) -> None:
        self.reader, self.steps = reader, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return self.reader.read(self.steps[place])


class _Start:
    """Prepares a worker process: it ends with this one, and computes on one core."""

    def __init__(self) -> None:
        self.parent = os.getpid()

    def __call__(self, worker: int) -> None:
        prepare_worker(self.parent)


def _by_processes(
    reader: BatchReader, steps: range, num_workers: int, pin_memory: bool
) -> Generator[Loaded]:
    loader = DataLoader(
        _Steps(reader, steps),
        batch_size=None,
        num_workers=min(num_workers, max(1, len(steps))),
        prefetch_factor=NUM_AHEAD,
        pin_memory=pin_memory,
        worker_init_fn=_Start(),
        # Spawned, not forked: a fork of a process whose thread pools have run, or that holds a
        # GPU, can hang.
        multiprocessing_context="spawn",
    )
    arriving = iter(loader)
    try:
        for step in steps:
            yield Loaded(step, next(arriving))
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise StageError(
            f"Expected {num_workers} processes that read batches; one was killed: {error}. Where "
            "memory ran out, lower train.num_loader_workers (1: a thread of this process)."
        ) from error
    finally:
        del arriving  # the last reference: its workers end
