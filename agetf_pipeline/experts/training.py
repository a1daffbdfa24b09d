"""Training the experts on labelled faces: each on another part of the subjects, degraded its way.

Experts that err alike gain nothing from being mixed. Each therefore leaves out other subjects,
starts from another seed and sees faces degraded to another extent.

Shapes: N images, C channels, H height, W width, A ages 0..100.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.fitting import FitSettings, fine_tune
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.tuning import FitResult, Watcher
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.experts.augment import augment
from agetf_pipeline.experts.fine_tuning import describe_validation, tuning_of
from agetf_pipeline.experts.imagenet import load_initial_weights
from agetf_pipeline.experts.kinds import Trainer, trainer_of
from agetf_pipeline.experts.preprocess import faces_to_tensor, normalise, profile_named

_LOGGER = logging.getLogger(__name__)
_NO_GENDER = -1
GENDERS: tuple[str, ...] = ("male", "female")
"""In the order of MiVOLO's two logits."""


@dataclass(frozen=True)
class LabelledFaces:
    """Faces with known ages.

    Attributes:
        faces_NHWC: uint8 (N, S, S, 3), RGB.
        ages_years: float32 (N,), 0 to 100.
        genders: Per face `male`, `female` or None.
    """

    faces_NHWC: np.ndarray
    ages_years: np.ndarray
    genders: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.ages_years)


def build_module(name: str, expert: ExpertConfig, ages_years: np.ndarray, seed: int) -> nn.Module:
    """Return an expert's network with initial weights drawn from `seed`.

    Args:
        name: Its name in the config.
        expert: Its kind, size and input.
        ages_years: float (N,), the training ages: their mean is where a regressor starts.
        seed: Seed of the weights.

    Raises:
        ConfigError: Networks of its kind are not trained here.
    """
    average = float(np.mean(ages_years)) if len(ages_years) else 40.0
    trainer = trainer_of(name, expert)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return trainer.build(expert, average)


def fit_expert(
    name: str,
    expert: ExpertConfig,
    data: LabelledFaces,
    seed: int,
    device: torch.device,
    checkpoint: Path,
    identity: str,
    out_path: Path,
    card: dict[str, Any],
    held_out: LabelledFaces | None = None,
    init_path: Path | None = None,
    watcher: Watcher | None = None,
) -> FitResult:
    """Train an expert and write its weights; killed and called again, it goes on.

    Args:
        name: Its name in the config.
        expert: Its size, input and training length.
        data: What it learns from.
        seed: Seed of weights, order and augmentation.
        device: Where to train.
        checkpoint: File of the unfinished training, removed at the end.
        identity: Fingerprint of the faces (held-out ones too), initial weights and settings.
        out_path: Weights file to write.
        card: What the card shall hold besides the architecture.
        held_out: Faces of other subjects, on which the best weights are chosen. None: the last are
            kept.
        init_path: What the training starts from. None: random weights.
        watcher: Is told of the training.

    Returns:
        The losses, and the validation errors in years.

    Raises:
        ConfigError: The kind has no head to train alone, or no ages to validate.
        StageError: There is no labelled face, or a loss is not finite.
        WeightsError: The initial weights do not fit.
    """
    module = build_module(name, expert, data.ages_years, seed)
    trainer, kind = trainer_of(name, expert), expert.kind or name
    start: dict[str, str] = {}
    if init_path is not None:
        start["started_from"] = load_initial_weights(module, init_path, kind, expert, trainer.head)
        start["init_sha256"] = hash_file(init_path)
    module = module.to(device)
    module = module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    settings = FitSettings(
        num_steps=expert.num_steps, batch_size=expert.batch_size, lr=expert.lr, seed=seed
    )
    loss_of = _loss_of(trainer, module, expert, data, device)
    tuning = tuning_of(name, expert, trainer, module, held_out, device, watcher)
    result = fine_tune(
        module, loss_of, len(data), settings, checkpoint, identity, f"training {name}", tuning
    )
    described = {
        "architecture": kind,
        "size": expert.size,
        "input_px": expert.input_px,
        "profile": trainer.profile,
        "num_train_images": len(data),
        "num_steps": expert.num_steps,
        "final_loss": round(result.final_loss, 6),
        **describe_validation(result, 0 if held_out is None else len(held_out)),
        **start,
    }
    save_weights(out_path, module, {**described, **card})
    checkpoint.unlink(missing_ok=True)
    return result


def _loss_of(
    trainer: Trainer,
    module: nn.Module,
    expert: ExpertConfig,
    data: LabelledFaces,
    device: torch.device,
) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return the loss of a batch: gather, degrade, normalise, predict, compare."""
    # Bytes stay on the CPU: a large corpus does not fit beside the network.
    faces_NHWC = data.faces_NHWC
    ages_N = torch.from_numpy(np.array(data.ages_years, np.float32)).to(device)
    codes = [GENDERS.index(g) if g in GENDERS else _NO_GENDER for g in data.genders]
    genders_N = torch.tensor(codes, dtype=torch.int64, device=device)
    how, profile = trainer.augmentation, profile_named(trainer.profile)

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        x_NCHW = faces_to_tensor(faces_NHWC[indices.numpy()], device, expert.input_px)
        x_NCHW = normalise(augment(x_NCHW, how, generator), profile)
        # Convolutions and pools are a quarter faster in this memory layout.
        x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
        indices = indices.to(device)
        return trainer.loss(module, x_NCHW, ages_N[indices], genders_N[indices])

    return loss_of
