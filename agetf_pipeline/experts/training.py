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
from torch.nn import functional as F

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.fitting import FitSettings, fit
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.experts.augment import Augmentation, augment
from agetf_pipeline.experts.heads import gaussian_nll, mean_variance_loss, regression_loss
from agetf_pipeline.experts.mivolo import PROFILE, AgeRange, MiVOLO
from agetf_pipeline.experts.preprocess import PROFILES, faces_to_tensor, normalise
from agetf_pipeline.experts.resnet50 import build_resnet50
from agetf_pipeline.experts.vgg16 import build_vgg16

_LOGGER = logging.getLogger(__name__)
_GENDER_WEIGHT = 0.1
_NO_GENDER = -1
GENDERS: tuple[str, ...] = ("male", "female")
"""In the order of MiVOLO's two logits."""

AUGMENTATIONS: dict[str, Augmentation] = {
    "mivolo": Augmentation(p_grey=0.12, p_blur=0.04, max_turn_rad=0.04),
    "resnet50": Augmentation(max_shift=0.04, p_low_res=0.15, max_saturation=0.3),
    "vgg16": Augmentation(max_zoom=0.05, p_blur=0.1, max_contrast=0.15, max_noise=0.02),
}
"""What each expert's training faces go through, beside what their corpus already did to them."""


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
        name: `mivolo`, `resnet50` or `vgg16`.
        expert: Its size and input.
        ages_years: float (N,), the training ages: their mean is where the regressor starts.
        seed: Seed of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "mivolo":
            average = float(np.mean(ages_years)) if len(ages_years) else 40.0
            return MiVOLO(expert.size, expert.input_px, AgeRange(average_years=average))
        return {"resnet50": build_resnet50, "vgg16": build_vgg16}[name](expert.size)


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
) -> float:
    """Train one of our three experts and write its weights; killed and called again, it goes on.

    Args:
        name: `mivolo`, `resnet50` or `vgg16`.
        expert: Its size, input and training length.
        data: What it learns from.
        seed: Seed of weights, order and augmentation.
        device: Where to train.
        checkpoint: File of the unfinished training, removed at the end.
        identity: Fingerprint of the faces and settings.
        out_path: Weights file to write.
        card: What the card shall hold besides the architecture.

    Returns:
        The mean loss of the last twentieth of the steps.

    Raises:
        StageError: There is no labelled face, or a loss is not finite.
    """
    module = build_module(name, expert, data.ages_years, seed).to(device)
    module = module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    settings = FitSettings(
        num_steps=expert.num_steps, batch_size=expert.batch_size, lr=expert.lr, seed=seed
    )
    loss_of = _loss_of(name, module, expert, data, device)
    losses = fit(module, loss_of, len(data), settings, checkpoint, identity, f"training {name}")
    last = float(np.mean(losses[-max(1, len(losses) // 20) :]))
    described = {
        "architecture": name,
        "size": expert.size,
        "input_px": expert.input_px,
        "profile": PROFILE,
        "num_train_images": len(data),
        "num_steps": expert.num_steps,
        "final_loss": round(last, 6),
    }
    save_weights(out_path, module, {**described, **card})
    checkpoint.unlink(missing_ok=True)
    return last


def _loss_of(
    name: str, module: nn.Module, expert: ExpertConfig, data: LabelledFaces, device: torch.device
) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return the loss of a batch: gather, degrade, normalise, predict, compare."""
    # Bytes stay on the CPU: a large corpus does not fit beside the network.
    faces_NHWC = data.faces_NHWC
    ages_N = torch.from_numpy(np.array(data.ages_years, np.float32)).to(device)
    codes = [GENDERS.index(g) if g in GENDERS else _NO_GENDER for g in data.genders]
    genders_N = torch.tensor(codes, dtype=torch.int64, device=device)
    how = AUGMENTATIONS[name]

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        x_NCHW = faces_to_tensor(faces_NHWC[indices.numpy()], device, expert.input_px)
        x_NCHW = normalise(augment(x_NCHW, how, generator), PROFILES[PROFILE])
        # Convolutions and pools are a quarter faster in this memory layout.
        x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
        indices = indices.to(device)
        if name == "mivolo":
            return _mivolo_loss(module(x_NCHW), ages_N[indices], genders_N[indices])
        return mean_variance_loss(module(x_NCHW), ages_N[indices])

    return loss_of


def _mivolo_loss(
    outputs: tuple[Tensor, Tensor | None, Tensor | None], ages_N: Tensor, genders_N: Tensor
) -> Tensor:
    """Age error, gender where it is known, and the likelihood of the spread (its head alone)."""
    age_N, gender_N2, sigma_N = outputs
    loss = regression_loss(age_N, ages_N)
    if sigma_N is not None:
        loss = loss + 0.1 * gaussian_nll((age_N - ages_N).detach(), sigma_N)
    if gender_N2 is not None and bool((genders_N != _NO_GENDER).any()):
        loss = loss + _GENDER_WEIGHT * F.cross_entropy(
            gender_N2, genders_N, ignore_index=_NO_GENDER
        )
    return loss
