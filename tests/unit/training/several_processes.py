"""What the processes of the distributed tests run; imported by the server they are forked from.

It loads what training loads late, so that the forks have it.
"""

import traceback
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import torch._dynamo
import torch.distributed.fsdp
import torch.utils.tensorboard
from test_training_loop import make_run

from agetf_pipeline.training import loop
from agetf_pipeline.training.checkpoints import TrainState
from agetf_pipeline.training.distributed import World, joined, whole


def process(
    task: Callable, world: World, folder: Path, answer: Connection, arguments: tuple
) -> None:
    """Be one process of several, and send back what the task returns, or why it failed."""
    torch.set_num_threads(1)
    try:
        # They meet in a file: a port could be taken.
        with joined(world, f"file://{folder / 'meeting'}"):
            answer.send((None, task(world, folder, *arguments)))
    except Exception as error:
        answer.send((f"{type(error).__name__}: {error}\n{traceback.format_exc()}", None))


def train(world: World, folder: Path, changes: dict, num_steps: int | None = None) -> dict:
    """Train the small run of the loop's tests on this process's rows; return whole tensors."""
    run = make_run(folder_of(world, folder), **changes)
    run = replace(run, world=world, checkpoints=folder / "checkpoints")
    return outcome(loop.train(run, num_steps))


def train_on_few_pairs(world: World, folder: Path, changes: dict) -> dict:
    """Train where only one person has two pictures: most steps, one process has no pair."""
    run = few_pairs(make_run(folder_of(world, folder), **changes))
    return outcome(loop.train(replace(run, world=world, checkpoints=folder / "checkpoints")))


def train_on_a_bad_label(world: World, folder: Path, changes: dict) -> dict:
    """Train where one face's age is not a number."""
    run = make_run(folder_of(world, folder), **changes)
    ages = run.data.ages_years.copy()
    ages[3] = np.nan
    data = replace(run.data, ages_years=ages)
    return outcome(loop.train(replace(run, data=data, world=world, folder=folder)))


def few_pairs(run: loop.Run) -> loop.Run:
    """Return a run on eight faces of seven people."""
    identities = np.array([0, 0, 1, 2, 3, 4, 5, 6])
    return replace(run, data=replace(run.data, identities=identities))


def folder_of(world: World, folder: Path) -> Path:
    """Return a folder of this process alone."""
    own = folder / f"process-{world.rank}"
    own.mkdir(exist_ok=True)
    return own


def outcome(state: TrainState) -> dict:
    """Return everything trained, whole, as arrays."""
    tensors = {
        f"{name}.{key}": value.numpy()
        for name, network in state.networks().items()
        for key, value in whole(network.state_dict()).items()
    }
    average = {f"ema.{key}": value.numpy() for key, value in whole(state.ema.state).items()}
    return {"tensors": tensors | average, "history": state.history, "step": state.step}
