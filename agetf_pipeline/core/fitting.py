"""One resumable loop for the small supervised networks: experts, enhancers, critics, evaluators.

`fit` trains a network as it is. `fine_tune` is the same loop with what a pretrained network wants
besides: a trunk that is frozen at first, and stopping when held-out data no longer gains.

The AgeTransformer has a loop of its own (`agetf_pipeline.training`).
"""

import logging
import math
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.tuning import (
    FitResult,
    Phases,
    Tuning,
    gains_nothing,
    is_due,
    parameter_groups,
)

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
    """Train `module` in place and return the loss of every step; see `fine_tune`."""
    result = fine_tune(
        module, loss_of, num_items, settings, checkpoint, identity, description, Tuning()
    )
    return result.losses


def fine_tune(
    module: "nn.Module",
    loss_of: LossOf,
    num_items: int,
    settings: FitSettings,
    checkpoint: Path,
    identity: str,
    description: str,
    tuning: Tuning,
) -> FitResult:
    """Train `module` in place; killed and called again, it goes on from its last checkpoint.

    Batches, and the generator given to `loss_of`, are functions of the seed and the step alone, so
    an interrupted training ends with the same weights as one that was not.

    Args:
        module: The network, on its device. Left in evaluation mode; with validation, with the
            weights that measured best.
        loss_of: The loss of a batch; it does its own gathering and augmentation.
        num_items: Number of training items; batches are drawn from whole shuffled epochs.
        settings: Optimiser and length.
        checkpoint: File of the unfinished state; removed by the caller when the weights are saved.
        identity: Fingerprint of data, architecture and settings: a checkpoint of another identity
            is ignored.
        description: For the progress display.
        tuning: Freezing, validation, and who is told.

    Returns:
        The losses and measurements.

    Raises:
        StageError: There is no item to train on, or a loss or a measurement is not finite.
    """
    import torch

    if num_items < 1:
        raise StageError(
            f"Expected labelled images to fit {description}; found none. Add labelled data, or "
            "configure trained weights for it."
        )
    optimizer = torch.optim.AdamW(
        parameter_groups(module, tuning.freezing),
        lr=settings.lr,
        weight_decay=settings.weight_decay,
    )
    keeper = _Keeper(module, optimizer, checkpoint, identity)
    result = keeper.resume()
    phases = Phases(module, tuning.freezing)
    watcher = tuning.watcher
    if watcher is not None:
        watcher.started(len(result.losses))
    with Progress(description, settings.num_steps) as progress:
        progress.advance(len(result.losses))
        for step in range(len(result.losses), settings.num_steps):
            if gains_nothing(result, tuning):
                break
            phases.enter(step)
            lr = settings.lr * _schedule(step, settings)
            value = _take_step(module, optimizer, loss_of, num_items, settings, step, description)
            result.losses.append(value)
            progress.advance(1, f"loss {value:.3f}")
            if watcher is not None:
                watcher.stepped(step, value, lr)
            if is_due(tuning.validation, step + 1, settings.num_steps):
                _validate(module, tuning, result, keeper, description)
                phases.leave()
            keeper.save_now_and_then(result)
    result.stopped_early = len(result.losses) < settings.num_steps
    keeper.restore_best()
    module.eval()
    return result


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


def _take_step(
    module: "nn.Module",
    optimizer: "torch.optim.Optimizer",
    loss_of: LossOf,
    num_items: int,
    settings: FitSettings,
    step: int,
    description: str,
) -> float:
    """Learn from one batch and return its loss."""
    import torch

    for group in optimizer.param_groups:
        group["lr"] = settings.lr * _schedule(step, settings) * group.get("lr_factor", 1.0)
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
    return value


def _schedule(step: int, settings: FitSettings) -> float:
    warmup = max(1, round(settings.num_steps * settings.warmup_fraction))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, settings.num_steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * done)) * 0.98 + 0.02


def _validate(
    module: "nn.Module", tuning: Tuning, result: FitResult, keeper: "_Keeper", description: str
) -> None:
    assert tuning.validation is not None
    module.eval()
    error, num_steps = tuning.validation.measure(), len(result.losses)
    if not math.isfinite(error):
        raise StageError(
            f"Expected a finite validation error while fitting {description}; found {error} after "
            f"{num_steps} steps. Lower the learning rate in the config."
        )
    result.validations.append((num_steps, error))
    if result.best == (num_steps, error):
        keeper.keep_best()
    if tuning.watcher is not None:
        tuning.watcher.validated(num_steps, error)


class _Keeper:
    """Keeps the unfinished state on disk, and the best weights."""

    def __init__(
        self,
        module: "nn.Module",
        optimizer: "torch.optim.Optimizer",
        checkpoint: Path,
        identity: str,
    ) -> None:
        self._module = module
        self._optimizer = optimizer
        self._checkpoint = checkpoint
        self._identity = identity
        self._best: dict[str, Tensor] | None = None
        self._last_saved_s = time.monotonic()
        self._pause_s = _CHECKPOINT_EVERY_S

    def save_now_and_then(self, result: FitResult) -> None:
        """Write the state, if the last time is long enough ago."""
        start_s = time.monotonic()
        if start_s - self._last_saved_s <= self._pause_s:
            return
        import torch

        state = {
            "identity": self._identity,
            "losses": result.losses,
            "validations": result.validations,
            "best": self._best,
            "module": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        with atomic_path(self._checkpoint) as temporary:
            torch.save(state, temporary)
        self._last_saved_s = time.monotonic()
        # Gigabytes take seconds to write: at most a tenth of the time goes into saving.
        self._pause_s = _CHECKPOINT_EVERY_S * max(1.0, self._last_saved_s - start_s)

    def resume(self) -> FitResult:
        """Load what an earlier call left, if it was of the same identity."""
        import torch

        if not self._checkpoint.exists():
            return FitResult()
        try:
            # PyTorch writes checksums and does not look at them when it reads.
            with zipfile.ZipFile(self._checkpoint) as archive:
                changed = archive.testzip()
            if changed is not None:
                raise zipfile.BadZipFile(f"the bytes of {changed} changed")
            state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
            identity = state["identity"]
        except Exception as error:  # what PyTorch says of damage is of many classes
            _LOGGER.warning(
                "expected the state of a training in %s; found damage (%s): starting afresh",
                self._checkpoint, str(error).strip().partition("\n")[0][:200],
            )  # fmt: skip
            return FitResult()
        if identity != self._identity:
            _LOGGER.info("%s belongs to other data or settings: starting afresh", self._checkpoint)
            return FitResult()
        self._module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best = state.get("best")
        _LOGGER.info("going on from step %d of %s", len(state["losses"]), self._checkpoint)
        return FitResult(state["losses"], list(state.get("validations", [])))

    def keep_best(self) -> None:
        """Take a copy of the weights as they stand."""
        state = self._module.state_dict()
        self._best = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def restore_best(self) -> None:
        """Put the best weights back, if any were kept."""
        if self._best is not None:
            self._module.load_state_dict(self._best)
