"""What the kill tests of training run: the stage, in a process of its own or in a fork."""

import os
import signal
import sys
from pathlib import Path

import torch._dynamo
from training_workspace import make_config

from agetf_pipeline.core import files
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.stages import train
from agetf_pipeline.training import checkpoints

SETTINGS = {"num_images": 24, "checkpoint_every_s": 1e-9, "validate_every_images": 0}


def run_stage(root: Path) -> None:
    """Train in this process, with a checkpoint every four images."""
    torch.set_num_threads(1)
    train.run(make_config(**SETTINGS), Workspace(root))


def die_inside_a_checkpoint(root: Path, file: str, number: int) -> None:
    """Train; die with half of a file of the n-th checkpoint on the disk."""
    atomic_path, seen = files.atomic_path, 0

    def dying(path: Path):
        nonlocal seen
        seen += path.name == file
        if path.name == file and seen == number:
            path.write_bytes(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)
        return atomic_path(path)

    for module in (files, checkpoints, sys.modules["agetf_pipeline.core.weights"]):
        module.atomic_path = dying  # type: ignore[attr-defined]
    run_stage(root)


def die_before_the_rename(root: Path, number: int) -> None:
    """Train; die when the n-th checkpoint is complete in its temporary folder."""
    sync, seen = files._sync_folder, 0

    def dying(folder: Path) -> None:
        nonlocal seen
        seen += folder.parent.name == "checkpoints"
        sync(folder)
        if folder.parent.name == "checkpoints" and seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    files._sync_folder = dying
    run_stage(root)


def run_for_long_in_two_processes(root: Path) -> None:
    """Train in two processes until somebody ends it."""
    config = make_config(num_processes=2, **(SETTINGS | {"num_images": 1_000_000}))
    train.run(config, Workspace(root))


if __name__ == "__main__":
    run_for_long_in_two_processes(Path(sys.argv[1]))
