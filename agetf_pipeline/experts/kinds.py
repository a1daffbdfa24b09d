"""Kinds of experts: each is a file of this package, found by the name that the config gives it.

A kind offers `load_expert`, and `TRAINER` where its networks can be trained by the workspace. So a
new expert is one file and one entry of `train_experts.experts`; docs/new_expert.md shows one.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.experts.base import AgeExpert

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from agetf_pipeline.experts.augment import Augmentation


class ExpertKind(Protocol):
    """What a file of this package offers so that a config may name it.

    Besides `load_expert` it may say `LOADS_IN_PRECISION = True` (else the expert is loaded in
    float32 and read in bfloat16 where that keeps its ages), and `batch_share(input_px)`: what a
    face costs in faces of a classifier, where it costs more than one.
    """

    def load_expert(
        self, name: str, expert: ExpertConfig, path: Path, device: "torch.device"
    ) -> AgeExpert:
        """Load an expert.

        Args:
            name: Its name in tables.
            expert: Its settings; `precision` is what the config asks for.
            path: Its weights, which exist: a file, or a folder in transformers' format.
            device: Where it runs.

        Raises:
            WeightsError: The weights are damaged or of another architecture.
        """
        ...


@dataclass(frozen=True)
class Trainer:
    """How the networks of a kind are trained on labelled faces.

    Attributes:
        build: The network with random weights, from its settings and the mean training age.
        loss: Mean loss of a batch, from the network, normalised faces float (N, 3, H, W), ages in
            years float (N,) and genders int64 (N,), -1 where unknown.
        augmentation: What its training faces go through.
        profile: Name of the pixel normalisation.
        head: Names of the submodules that form the head: what learns while the trunk is frozen, and
            what ImageNet weights do not fill. Empty: such networks learn as a whole, from random
            weights or from weights written here.
        ages: Ages in years, float (N,), from the network and normalised faces. None: such networks
            are not validated while they are trained.
    """

    build: "Callable[[ExpertConfig, float], nn.Module]"
    loss: "Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]"
    augmentation: "Augmentation"
    profile: str = "imagenet"
    head: tuple[str, ...] = ()
    ages: "Callable[[nn.Module, Tensor], Tensor] | None" = None


def kind_of(name: str, expert: ExpertConfig) -> ExpertKind:
    """Return the kind of an expert.

    Raises:
        ConfigError: No file of this package offers it.
    """
    kind = expert.kind or name
    module_name = f"{__package__}.{kind}"
    if importlib.util.find_spec(module_name) is not None:
        module = importlib.import_module(module_name)
        if hasattr(module, "load_expert"):
            return cast(ExpertKind, module)
    raise ConfigError(
        f"Expected train_experts.experts.{name} to be of a kind among {_all_kinds()}; found "
        f"{kind!r}. Set train_experts.experts.{name}.kind, or add "
        f"agetf_pipeline/experts/{kind}.py (docs/new_expert.md)."
    )


def trainer_of(name: str, expert: ExpertConfig) -> Trainer:
    """Return how an expert is trained.

    Raises:
        ConfigError: Its kind only loads weights that were made elsewhere.
    """
    trainer = getattr(kind_of(name, expert), "TRAINER", None)
    if trainer is None:
        raise ConfigError(
            f"Expected trained weights in train_experts.experts.{name}.weights; found none, and "
            f"experts of the kind {expert.kind or name!r} are not trained here. Name a file."
        )
    return trainer


def _all_kinds() -> list[str]:
    """Names of the files of this package that are kinds; imports them, so for messages only."""
    package = importlib.import_module(str(__package__))
    names = (info.name for info in pkgutil.iter_modules(package.__path__))
    return sorted(
        name
        for name in names
        if hasattr(importlib.import_module(f"{__package__}.{name}"), "load_expert")
    )
