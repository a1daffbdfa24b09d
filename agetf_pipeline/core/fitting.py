"""One resumable loop for the small supervised networks: experts, enhancers, critics, evaluators.

The AgeTransformer has a loop of its own (`agetf_pipeline.training`).
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_LOGGER = logging.getLogger(__name__)
_CHECKPOINT_EVERY_S = 10.0


@dataclass(frozen=True)
class FitSettings:
    """How a supervised network is trained: AdamW, linear warm-up, cosine decay."""

    num_steps: int
    batch_size: int
    lr: float
    weight_decay: float = 0.01
    warmup_fraction: float = 0.05
    max_grad_norm: float = 1.0
    seed: int = 0


LossOf = Callable[["Tensor", "torch.Generator"], "Tensor"]
"""Mean loss of a batch, from its item indices (int64, shape (batch,)) and a seeded generator."""


def fit(
    module: "nn.Module",
    loss_of: LossOf,
    num_items: int,
    settings: FitSettings,
    checkpoint: Path,
    identity: str,
    description: str,
) -> list[float]:
    """Train `module` in place; killed and called again, it goes on from its last checkpoint.

    Batches, and the generator given to `loss_of`, are functions of the seed and the step alone, so
    an interrupted training ends with the same weights as one that was not.

    Args:
        module: The network, on its device. Left in evaluation mode.
        loss_of: The loss of a batch; it does its own gathering and augmentation.
        num_items: Number of training items; batches are drawn from whole shuffled epochs.
        settings: Optimiser and length.
        checkpoint: File of the unfinished state; removed by the caller when the weights are saved.
        identity: Fingerprint of data, architecture and settings: a checkpoint of another identity
            is ignored.
        description: For the progress display.

    Returns:
        The loss of every step.

    Raises:
        StageError: There is no item to train on, or a loss is not finite.
    """
    import torch

    if num_items < 1:
        raise StageError(
            f"Expected labelled images to fit {description}; found none. Add labelled data, or "
            "configure trained weights for it."
        )
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    losses = _resume(module, optimizer, checkpoint, identity)
    module.train()
    last_saved_s = time.monotonic()
    with Progress(description, settings.num_steps) as progress:
        progress.advance(len(losses))
        for step in range(len(losses), settings.num_steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * _schedule(step, settings)
            generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
            # Dropout draws from the global generator: seeded by the step too, so that a resumed
            # training sees the same masks.
            torch.manual_seed(settings.seed * 1_000_003 + step)
            indices = batch_indices(step, num_items, settings.batch_size, settings.seed)
            loss = loss_of(indices, generator)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise StageError(
                    f"Expected a finite loss while fitting {description}; found {value} at step "
                    f"{step}. Lower the learning rate in the config."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), settings.max_grad_norm)
            optimizer.step()
            losses.append(value)
            progress.advance(1, f"loss {value:.3f}")
            if time.monotonic() - last_saved_s > _CHECKPOINT_EVERY_S:
                _save(module, optimizer, losses, checkpoint, identity)
                last_saved_s = time.monotonic()
    module.eval()
    return losses


def batch_indices(step: int, num_items: int, batch_size: int, seed: int) -> "Tensor":
    """Return the items of one step, int64 (batch_size,), from shuffled epochs laid end to end."""
    import torch

    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    chosen = torch.empty(batch_size, dtype=torch.int64)
    for epoch in torch.div(positions, num_items, rounding_mode="floor").unique().tolist():
        generator = torch.Generator().manual_seed(seed * 7_919 + epoch)
        order = torch.randperm(num_items, generator=generator)
        inside = torch.div(positions, num_items, rounding_mode="floor") == epoch
        chosen[inside] = order[positions[inside] % num_items]
    return chosen


def _schedule(step: int, settings: FitSettings) -> float:
    warmup = max(1, round(settings.num_steps * settings.warmup_fraction))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, settings.num_steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * done)) * 0.98 + 0.02


def _save(
    module: "nn.Module",
    optimizer: "torch.optim.Optimizer",
    losses: list[float],
    checkpoint: Path,
    identity: str,
) -> None:
    import torch

    state = {
        "identity": identity,
        "losses": losses,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with atomic_path(checkpoint) as temporary:
        torch.save(state, temporary)


def _resume(
    module: "nn.Module", optimizer: "torch.optim.Optimizer", checkpoint: Path, identity: str
) -> list[float]:
    import torch

    if not checkpoint.exists():
        return []
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if state["identity"] != identity:
        _LOGGER.info("%s belongs to other data or settings: starting afresh", checkpoint)
        return []
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    _LOGGER.info("going on from step %d of %s", len(state["losses"]), checkpoint)
    return state["losses"]
