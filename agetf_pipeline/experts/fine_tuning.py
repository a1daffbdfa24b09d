"""How an expert's settings become a schedule: what is frozen, what is held out, when it stops.

Shapes: N images, C channels, H height, W width.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.core.tuning import FitResult, Freezing, Tuning, Validation, Watcher
from agetf_pipeline.experts.kinds import Trainer
from agetf_pipeline.experts.preprocess import faces_to_tensor, normalise, profile_named

if TYPE_CHECKING:
    from agetf_pipeline.experts.training import LabelledFaces


def tuning_of(
    name: str,
    expert: ExpertConfig,
    trainer: Trainer,
    module: nn.Module,
    held_out: "LabelledFaces | None",
    device: torch.device,
    watcher: Watcher | None = None,
) -> Tuning:
    """Return what a training of this expert has besides its steps.

    Args:
        name: Its name in the config.
        expert: Its settings.
        trainer: How its kind is trained.
        module: The network, on its device.
        held_out: Labelled faces of subjects that it does not learn from; None or empty: it is not
            validated.
        device: Where it is trained.
        watcher: Is told of the training.

    Raises:
        ConfigError: The settings ask for what the kind does not have: a head to train alone, or
            ages to validate.
    """
    freezing = _freezing_of(name, expert, trainer)
    if held_out is None or not len(held_out):
        return Tuning(freezing, None, watcher)
    if trainer.ages is None:
        raise ConfigError(
            f"Expected train_experts.experts.{name}.validation_fraction to be 0: experts of the "
            f"kind {expert.kind or name!r} are not validated while they are trained. Found "
            f"{expert.validation_fraction}."
        )
    validation = Validation(
        lambda: mae_years(trainer, module, held_out, expert, device),
        expert.validate_every,
        expert.patience,
    )
    return Tuning(freezing, validation, watcher)


@torch.inference_mode()
def mae_years(
    trainer: Trainer,
    module: nn.Module,
    data: "LabelledFaces",
    expert: ExpertConfig,
    device: torch.device,
) -> float:
    """Return the mean absolute error on faces as they are, in years; `module` in evaluation mode.

    Args:
        trainer: How its kind reads ages.
        module: The network, on `device`.
        data: At least one face.
        expert: Its input and batch size.
        device: Where it runs.
    """
    assert trainer.ages is not None
    profile = profile_named(trainer.profile)
    ages = []
    for start in range(0, len(data), expert.batch_size):
        faces_NHWC = data.faces_NHWC[start : start + expert.batch_size]
        x_NCHW = normalise(faces_to_tensor(faces_NHWC, device, expert.input_px), profile)
        x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
        ages.append(trainer.ages(module, x_NCHW).float().cpu().numpy())
    errors = np.abs(np.concatenate(ages) - np.asarray(data.ages_years, np.float32))
    return float(np.mean(errors, dtype=np.float64))


def describe_validation(result: FitResult, num_images: int) -> dict[str, Any]:
    """Return what the card says of early stopping; empty where nothing was held out."""
    if result.best is None:
        return {}
    best_step, error = result.best
    return {
        "validation": {
            "num_images": num_images,
            "mae_years": round(error, 6),
            "best_step": best_step,
            "last_step": len(result.losses),
            "stopped": "early" if result.stopped_early else "at its last step",
        }
    }


def num_frozen_steps(expert: ExpertConfig) -> int:
    """Return the number of steps in which only the head learns."""
    return round(expert.frozen_fraction * expert.num_steps)


def _freezing_of(name: str, expert: ExpertConfig, trainer: Trainer) -> Freezing | None:
    if expert.frozen_fraction == 0 and expert.trunk_lr_factor == 1:
        return None
    if not trainer.head:
        raise ConfigError(
            f"Expected train_experts.experts.{name}.frozen_fraction 0 and trunk_lr_factor 1: "
            f"experts of the kind {expert.kind or name!r} have no head to train alone. Found "
            f"{expert.frozen_fraction} and {expert.trunk_lr_factor}."
        )
    return Freezing(trainer.head, num_frozen_steps(expert), expert.trunk_lr_factor)
