"""The unfinished state of a run: written atomically, read without executing anything."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.files import atomic_path

_LOGGER = logging.getLogger(__name__)


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
    """Everything that changes during a run."""

    model: nn.Module
    discriminator: nn.Module
    aligner: nn.Module
    optimizer: torch.optim.Optimizer
    optimizer_discriminator: torch.optim.Optimizer
    ema: Ema
    step: int = 0
    num_images: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(path: Path, state: TrainState, identity: str) -> None:
    """Write the state, so that the same command goes on from here."""
    content = {
        "identity": identity,
        "step": state.step,
        "num_images": state.num_images,
        "history": state.history,
        "model": state.model.state_dict(),
        "discriminator": state.discriminator.state_dict(),
        "aligner": state.aligner.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "optimizer_discriminator": state.optimizer_discriminator.state_dict(),
        "ema": state.ema.state,
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def resume(path: Path, state: TrainState, identity: str) -> bool:
    """Load a checkpoint into `state` where there is one of the same identity.

    Returns:
        Whether the run goes on; without a fitting checkpoint it starts afresh.

    Raises:
        WeightsError: The file cannot be read.
    """
    if not path.exists():
        return False
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"Expected a checkpoint at {path}; could not read it: {error}. "
            "Delete it to start the run afresh."
        ) from error
    if content["identity"] != identity:
        _LOGGER.info("%s belongs to other data or settings: starting afresh", path)
        return False
    state.model.load_state_dict(content["model"])
    state.discriminator.load_state_dict(content["discriminator"])
    state.aligner.load_state_dict(content["aligner"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.optimizer_discriminator.load_state_dict(content["optimizer_discriminator"])
    for name, value in content["ema"].items():
        own: Tensor = state.ema.state[name]
        own.copy_(value)
    state.step, state.num_images = content["step"], content["num_images"]
    state.history = content["history"]
    _LOGGER.info("going on from image %d of %s", state.num_images, path)
    return True
