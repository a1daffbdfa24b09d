"""Several processes that train one network: who they are, what each takes, what they add up.

`train.batch_size` counts the images of all processes together. Every process draws the same seeded
batch and takes its rows of it, and what is a mean over the batch is normalised over all processes,
so that the result does not depend on their number, up to the order of sums.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from agetf_pipeline.age_transformer import losses
from agetf_pipeline.core.devices import resolve_device
from agetf_pipeline.core.errors import ConfigError

# The first process measures, draws and saves while the others wait for it.
_PATIENCE = timedelta(hours=1)
_GROUP = 4
"""Faces whose deviation the discriminator sees together, see `Discriminator.group_size`."""


@dataclass(frozen=True)
class World:
    """The processes of a training, and which of them this is.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
        local_rank: Number of this process among those of its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process logs, measures and saves."""
        return self.rank == 0


def world_of_environment() -> World:
    """Return what `torchrun` says of this process; a world of one without it."""
    values = (os.environ.get(name, default) for name, default in
              (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")))  # fmt: skip
    return World(*(int(value) for value in values))


@contextmanager
def joined(world: World, meet_at: str = "env://") -> Iterator[World]:
    """Be one of the processes while the block runs: gloo for CPU tensors, nccl for CUDA's.

    Args:
        world: The processes.
        meet_at: Where they find each other: where `torchrun` says, or `file://` and a file.
    """
    if world.size == 1:
        yield world
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, meet_at, _PATIENCE, world.size, world.rank)
    yield world
    # Not in a `finally`: after an error the others do not answer, and the process ends anyhow.
    dist.destroy_process_group()


def device_of(name: str, world: World) -> torch.device:
    """Return the device of this process: with several, each takes the one of its number.

    Raises:
        ConfigError: There is no such device.
    """
    device = resolve_device(name)
    if world.size == 1 or device.type != "cuda":
        return device
    if world.local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"Expected a CUDA device for each process; found {torch.cuda.device_count()} for "
            f"process {world.local_rank + 1} of this machine. Start fewer (train.num_processes), "
            "or set runtime.device=cpu."
        )
    device = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(device)
    return device


def rows_of(world: World, batch_size: int) -> np.ndarray:
    """Return the rows of the batch, int64 (B / size,), that this process takes.

    The discriminator compares faces in groups of four that lie B / 4 apart. Where 4 x size divides
    B, the rows are taken such that the groups of all processes together are those that one process
    would form; otherwise they are consecutive, and groups are formed of fewer or other faces.

    Raises:
        ConfigError: The number of processes does not divide the batch.
    """
    if batch_size % world.size:
        raise ConfigError(
            f"Expected train.batch_size, which counts all processes together, to be a multiple of "
            f"their number; found {batch_size} for {world.size}. Set it to "
            f"{max(1, round(batch_size / world.size)) * world.size}."
        )
    rows = np.arange(batch_size)
    if world.size == 1:
        return rows
    if keeps_groups(world, batch_size):
        return rows.reshape(_GROUP, world.size, -1)[:, world.rank].reshape(-1)
    return rows.reshape(world.size, -1)[world.rank]


def keeps_groups(world: World, batch_size: int) -> bool:
    """Whether the discriminator's groups are those of a single process."""
    return world.size == 1 or batch_size % (_GROUP * world.size) == 0


def average(value: Tensor) -> Tensor:
    """Return the mean over all processes of a tensor, without gradient; one process: itself."""
    if not _several():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def weighted_mean(values_N: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """Return `losses.weighted_mean` such that its mean over processes is that of the whole batch.

    Gradients are averaged over processes, each with its rows: so a sum of its rows is divided by
    the mean weight of all, not by its own.
    """
    if weights_N is None:
        return values_N.mean()
    return losses.weighted_mean(values_N, weights_N, average(weights_N.sum()))


def average_values(values: dict[str, Tensor], device: torch.device) -> dict[str, float]:
    """Return numbers averaged over processes, in one exchange. All must have the same names."""
    if not _several():
        return {name: float(value.detach()) for name, value in values.items()}
    packed = torch.stack([value.detach().to(device, torch.float32) for value in values.values()])
    return dict(zip(values, average(packed).tolist(), strict=True))


def share(value: Any) -> Any:
    """Return the first process's value in every process."""
    if not _several():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def whole(value: Any) -> Any:
    """Return tensors, nested in dicts and lists, whole and in CPU memory.

    A tensor that is sharded is put together, in which every process must take part.
    """
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    if not isinstance(value, Tensor):
        return value
    if is_sharded(value):
        value = value.full_tensor()  # type: ignore[attr-defined]
    return value.detach().cpu()


def laid_out_like(value: Tensor, own: Tensor) -> Tensor:
    """Return a whole tensor, known to every process, sharded as `own` is; else itself."""
    if not is_sharded(own):
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh = own.device_mesh  # type: ignore[attr-defined]
    on_device = value.to(mesh.device_type)
    placements = own.placements  # type: ignore[attr-defined]
    return distribute_tensor(on_device, mesh, placements, src_data_rank=None)


def is_sharded(value: Tensor) -> bool:
    """Whether a tensor is a DTensor, whose module takes a second to import."""
    return hasattr(value, "full_tensor")


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
