"""Checkpoints of a run: a folder each, whole or not there, and the average of the weights.

A folder `images-00012800` holds weights.safetensors (the average, ready to render with),
model.safetensors (the networks as they train), optimizer.pt, and state.json with everything else
and the hash of each file. The tensors are whole whatever the processes hold, so that another
number of processes can go on from them.
"""

import logging
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.files import (
    atomic_folder,
    atomic_path,
    read_json,
    remove_temporary_folders,
    write_json,
)
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import read_state, save_tensors
from agetf_pipeline.training.distributed import laid_out_like, share, whole

_LOGGER = logging.getLogger(__name__)

WEIGHTS_FILE = "weights.safetensors"
NETWORKS_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.pt"
STATE_FILE = "state.json"
BEST_FILE = "best.json"
BEST_FIGURE = "val_paired_l1"
"""The validation figure that the best checkpoint has the lowest of."""

_REPOSITORY = Path(__file__).resolve().parents[2]


class Ema:
    """Exponential moving average of a module's state, its half-life counted in images."""

    def __init__(self, module: nn.Module, half_life_images: int) -> None:
        self.half_life_images = half_life_images
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, batch_size: int, num_images: int) -> None:
        """Take in the module after a step of `batch_size`, `num_images` in all.

        Early on the average spans a tenth of what has been seen, so that the start is forgotten.
        """
        half_life = min(self.half_life_images, max(num_images / 10, 1))
        decay = 0.5 ** (batch_size / half_life)
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


@dataclass
class TrainState:
    """Everything that changes during a run.

    Attributes:
        model: The generator; its parameters are sharded where training is.
        discriminator: Judges renderings.
        aligner: Brings renderings before another camera.
        generator_step: The losses of model and aligner as one module that exchanges gradients.
        discriminator_step: The same of the discriminator.
        optimizer: Of model and aligner.
        optimizer_discriminator: Of the discriminator.
        ema: Average of the model.
        step: Steps done.
        num_images: Images seen.
        history: A row of means each `log_every_images`.
        figures: What validation measured at this very step; empty where it did not.
    """

    model: nn.Module
    discriminator: nn.Module
    aligner: nn.Module
    generator_step: nn.Module
    discriminator_step: nn.Module
    optimizer: torch.optim.Optimizer
    optimizer_discriminator: torch.optim.Optimizer
    ema: Ema
    step: int = 0
    num_images: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def networks(self) -> dict[str, nn.Module]:
        """Return what is trained, by name."""
        return {
            "model": self.model, "discriminator": self.discriminator, "aligner": self.aligner,
        }  # fmt: skip

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers, by name."""
        return {
            "optimizer": self.optimizer,
            "optimizer_discriminator": self.optimizer_discriminator,
        }


@dataclass(frozen=True)
class Origin:
    """What a checkpoint says of where it comes from.

    Attributes:
        identity: Fingerprint of all that the result depends on; who resumes must have the same.
        record: Resolved configuration, seed, commit and data hashes, for people.
        card: What the averaged weights say of themselves, see `core.weights.save_weights`.
    """

    identity: str
    record: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)


def checkpoint_path(folder: Path, num_images: int) -> Path:
    """Return the folder of a checkpoint."""
    return folder / f"images-{num_images:08d}"


def save_checkpoint(
    folder: Path, state: TrainState, origin: Origin, keep_last: int, write: bool = True
) -> Path:
    """Write the state, so that the same command goes on from here; drop what is too old.

    Args:
        folder: Of all checkpoints of a run.
        state: To write. Every process calls this: a sharded state is put together by all.
        origin: Where it comes from.
        keep_last: How many to keep beside the best.
        write: Whether this process is the one that writes.

    Returns:
        The checkpoint's folder.
    """
    path = checkpoint_path(folder, state.num_images)
    average = whole(state.ema.state)
    networks = {
        f"{name}.{key}": value
        for name, network in state.networks().items()
        for key, value in whole(network.state_dict()).items()
    }
    optimizers = {name: whole(each.state_dict()) for name, each in state.optimizers().items()}
    if not write:
        return path
    with atomic_folder(path) as temporary:
        save_tensors(temporary / WEIGHTS_FILE, average, dict(origin.card))
        save_tensors(temporary / NETWORKS_FILE, networks, {})
        with atomic_path(temporary / OPTIMIZER_FILE) as file:
            torch.save(optimizers, file)
        names = (WEIGHTS_FILE, NETWORKS_FILE, OPTIMIZER_FILE)
        content = {
            **origin.record,
            "identity": origin.identity,
            "step": state.step,
            "num_images": state.num_images,
            "history": state.history,
            "figures": state.figures,
            "files": {name: hash_file(temporary / name) for name in names},
        }
        write_json(temporary / STATE_FILE, content)
    if is_best(folder, origin.identity, state.figures):
        best = {
            "checkpoint": path.name,
            "figure": BEST_FIGURE,
            "value": state.figures[BEST_FIGURE],
            "identity": origin.identity,
        }
        write_json(folder / BEST_FILE, best)
    _drop_old(folder, origin.identity, state.num_images, keep_last)
    return path


def is_best(folder: Path, identity: str, figures: Mapping[str, float]) -> bool:
    """Whether these figures are better than those of every checkpoint of this run."""
    value = figures.get(BEST_FIGURE)
    if value is None:
        return False
    best = best_checkpoint(folder, identity)
    return best is None or value < best[1]


def best_checkpoint(folder: Path, identity: str) -> tuple[Path, float] | None:
    """Return the best checkpoint of this run and its figure, or None."""
    try:
        best = read_json(folder / BEST_FILE)
        path, value = folder / best["checkpoint"], float(best["value"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    fits = best.get("identity") == identity and (path / STATE_FILE).is_file()
    return (path, value) if fits else None


def resume(folder: Path, state: TrainState, identity: str, length: int, first: bool = True) -> bool:
    """Load the newest whole checkpoint of the same identity into `state`, where there is one.

    Args:
        folder: Of all checkpoints of the run.
        state: To load into, in every process.
        identity: Fingerprint of this run.
        length: Images of the whole run. A finished one needs no optimiser any more.
        first: Whether this process is the one that chooses.

    Returns:
        Whether the run goes on; without a fitting checkpoint it starts afresh.
    """
    if first:
        remove_temporary_folders(folder)
    path: Path | None = share(_newest_whole(folder, identity, length) if first else None)
    if path is None:
        return False
    content = read_json(path / STATE_FILE)
    tensors = read_state(path / NETWORKS_FILE)
    for name, network in state.networks().items():
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items()
               if key.startswith(f"{name}.")}  # fmt: skip
        _copy(network.state_dict(), own, path)
    _copy(state.ema.state, read_state(path / WEIGHTS_FILE), path)
    if (path / OPTIMIZER_FILE).is_file():
        saved = torch.load(path / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
        for name, optimizer in state.optimizers().items():
            optimizer.load_state_dict(_as_own(saved[name], optimizer))
    state.step, state.num_images = content["step"], content["num_images"]
    state.history, state.figures = content["history"], content["figures"]
    _LOGGER.info("going on from image %d of %s", state.num_images, path)
    return True


def finish(folder: Path, identity: str) -> None:
    """Leave the weights of the last checkpoint and of the best; drop optimisers and all else."""
    remove_temporary_folders(folder)
    own = [path for path in _checkpoints(folder) if _identity(path) == identity]
    best = best_checkpoint(folder, identity)
    keep = {*own[-1:], *([best[0]] if best else [])}
    for path in _checkpoints(folder):
        if path in keep:
            (path / OPTIMIZER_FILE).unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)
    if best is None:
        (folder / BEST_FILE).unlink(missing_ok=True)


def git_commit() -> str | None:
    """Return the commit that the code is at; None where it is no checkout or git does not say."""
    if not (_REPOSITORY / ".git").exists():
        return None
    command = ["git", "-C", str(_REPOSITORY), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders by the images seen."""
    found = [path for path in folder.glob("images-*[0-9]") if path.is_dir()]
    return sorted(found, key=_num_images)


def _num_images(path: Path) -> int:
    return int(path.name.removeprefix("images-"))


def _identity(path: Path) -> str | None:
    try:
        return read_json(path / STATE_FILE)["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _newest_whole(folder: Path, identity: str, length: int) -> Path | None:
    others = 0
    for path in reversed(_checkpoints(folder)):
        try:
            content = read_json(path / STATE_FILE)
            if content["identity"] != identity:
                others += 1
                continue
            files = dict(content["files"])
            if not (path / OPTIMIZER_FILE).exists():
                if content["num_images"] < length:
                    continue  # the best one of a finished run
                files.pop(OPTIMIZER_FILE)
            wrong = [name for name, known in files.items() if hash_file(path / name) != known]
        except (OSError, ValueError, KeyError, TypeError) as error:
            wrong = [f"{STATE_FILE} or a file that it names ({error})"]
        if not wrong:
            return path
        _LOGGER.warning(
            "expected a whole checkpoint in %s; %s is damaged: taking the one before. "
            "Delete the folder.", path, ", ".join(wrong),
        )  # fmt: skip
    if others:
        _LOGGER.info(
            "%d checkpoints in %s belong to other data or settings: starting afresh. They go when "
            "this run ends", others, folder,
        )  # fmt: skip
    return None


def _drop_old(folder: Path, identity: str, num_images: int, keep_last: int) -> None:
    """Remove this run's checkpoints but the last ones and the best."""
    own = [path for path in _checkpoints(folder) if _identity(path) == identity]
    # Later than the present: what was damaged, when the run went on from an earlier one.
    past = [path for path in own if _num_images(path) <= num_images]
    best = best_checkpoint(folder, identity)
    keep = {*past[-keep_last:], *([best[0]] if best else [])}
    for path in own:
        if path not in keep:
            shutil.rmtree(path, ignore_errors=True)


@torch.no_grad()
def _copy(own: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
    if differing := sorted(own.keys() ^ saved.keys()):
        raise WeightsError(
            f"Expected the tensors of this version's networks in {path}; {', '.join(differing)} "
            "are in one of them only. Delete the folder to start the run afresh."
        )
    for name, value in own.items():
        value.copy_(laid_out_like(saved[name], value))


def _as_own(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Lay the saved moments out as the parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        index: {
            name: laid_out_like(value, parameters[index])
            if isinstance(value, Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in moments.items()
        }
        for index, moments in saved["state"].items()
    }
    return {**saved, "state": state}
