"""What fine-tuning adds to a plain training: a trunk frozen at first, validation, and a log.

`core.fitting.fine_tune` is the loop that goes by these.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Freezing:
    """First the head learns alone, then the whole network, its trunk more slowly.

    Attributes:
        head: Names of the submodules that form the head, such as `fc`.
        num_frozen_steps: Steps before the trunk learns. Until then it is in evaluation mode: its
            normalisation statistics stay, and its dropout is off.
        trunk_lr_factor: Learning rate of the trunk over that of the head.
    """

    head: tuple[str, ...]
    num_frozen_steps: int = 0
    trunk_lr_factor: float = 1.0


@dataclass(frozen=True)
class Validation:
    """Measuring on held-out data, keeping the best weights, and stopping when nothing is gained.

    Attributes:
        measure: The error of the network as it stands, in evaluation mode; less is better. A
            function of the weights alone.
        every: Steps between two measurements; the last step is measured too.
        patience: Measurements without a new best, of the unfrozen network, after which to stop.
    """

    measure: Callable[[], float]
    every: int
    patience: int


class Watcher(Protocol):
    """Is told of a training as it goes, for a log."""

    def started(self, step: int) -> None:
        """The training begins, or goes on, with this step."""
        ...

    def stepped(self, step: int, loss: float, lr: float) -> None:
        """A step is done; `lr` is the head's."""
        ...

    def validated(self, num_steps: int, error: float) -> None:
        """The network after so many steps was measured."""
        ...


@dataclass(frozen=True)
class Tuning:
    """What `fine_tune` adds to a plain training; nothing by default."""

    freezing: Freezing | None = None
    validation: Validation | None = None
    watcher: Watcher | None = None


@dataclass
class FitResult:
    """What a training went through.

    Attributes:
        losses: The loss of every step.
        validations: Per measurement the steps done before it, and the error.
        stopped_early: Whether it ended because nothing was gained any more.
    """

    losses: list[float] = field(default_factory=list)
    validations: list[tuple[int, float]] = field(default_factory=list)
    stopped_early: bool = False

    @property
    def final_loss(self) -> float:
        """Mean loss of the last twentieth of the steps."""
        return float(np.mean(self.losses[-max(1, len(self.losses) // 20) :]))

    @property
    def best(self) -> tuple[int, float] | None:
        """Steps and error of the first best measurement; None where none was made."""
        return min(self.validations, key=lambda pair: pair[1], default=None)


def parameter_groups(module: "nn.Module", freezing: Freezing | None) -> Any:
    """Return what the optimiser gets: all parameters, or those of head and trunk apart."""
    if freezing is None:
        return module.parameters()
    named = list(module.named_parameters())
    return [
        {"params": [p for name, p in named if _is_in_head(name, freezing)], "lr_factor": 1.0},
        {
            "params": [p for name, p in named if not _is_in_head(name, freezing)],
            "lr_factor": freezing.trunk_lr_factor,
        },
    ]


def _is_in_head(name: str, freezing: Freezing) -> bool:
    return name.startswith(tuple(f"{part}." for part in freezing.head))


class Phases:
    """Which part of the network learns at a step."""

    def __init__(self, module: "nn.Module", freezing: Freezing | None) -> None:
        self._module = module
        self._freezing = freezing
        self._frozen: bool | None = None  # None: evaluation mode
        named = module.named_parameters() if freezing is not None else ()
        self._trunk = [
            parameter
            for name, parameter in named
            if freezing is not None and not _is_in_head(name, freezing) and parameter.requires_grad
        ]

    def enter(self, step: int) -> None:
        """Put the network into the mode of a step."""
        freezing = self._freezing
        frozen = freezing is not None and step < freezing.num_frozen_steps
        if frozen == self._frozen:
            return
        self._frozen = frozen
        self._module.train(not frozen)
        if freezing is not None and frozen:
            for name in freezing.head:
                self._module.get_submodule(name).train()
        for parameter in self._trunk:
            parameter.requires_grad_(not frozen)

    def leave(self) -> None:
        """Take note that somebody changed the network's mode."""
        self._frozen = None


def is_due(validation: Validation | None, num_done: int, num_steps: int) -> bool:
    """Whether the network is measured after so many steps."""
    return validation is not None and (num_done % validation.every == 0 or num_done == num_steps)


def gains_nothing(result: FitResult, tuning: Tuning) -> bool:
    """Whether `patience` measurements of the unfrozen network have brought no new best."""
    if tuning.validation is None or result.best is None:
        return False
    num_frozen = 0 if tuning.freezing is None else tuning.freezing.num_frozen_steps
    since = max(result.best[0], num_frozen)
    return sum(steps > since for steps, _ in result.validations) >= tuning.validation.patience
