"""Training and loading the frozen networks that guide the AgeTransformer.

The age regressor is a student of the labels in the training manifest (the mixture's, and the
corpus's own where it gives true ages). The identity embedder learns which images show one person.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agetf_pipeline.age_transformer.losses import expected_age, soft_age_target, weighted_mean
from agetf_pipeline.age_transformer.lpips import Lpips, load_lpips
from agetf_pipeline.age_transformer.renderer import to_tensor
from agetf_pipeline.core.devices import computes_bf16
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.fitting import FitSettings, fit
from agetf_pipeline.core.weights import load_weights, read_card
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import NUM_AGE_BINS
from agetf_pipeline.training.critics import AgeRegressor, IdentityEmbedder
from agetf_pipeline.training.dataset import FaceData, balanced_probabilities

if TYPE_CHECKING:
    from agetf_pipeline.config.train import TrainConfig

AGE_REGRESSOR = "age_regressor"
IDENTITY_EMBEDDER = "identity_embedder"
_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Guidance:
    """The frozen networks, in evaluation mode, without gradients of their own.

    Attributes:
        age_regressor: Reads ages: the mixture's student.
        identity_embedder: Says who is who.
        lpips: Perceptual distance; None without AlexNet's weights: then the term is off.
    """

    age_regressor: AgeRegressor
    identity_embedder: IdentityEmbedder
    lpips: Lpips | None = None


def guidance_path(workspace: Workspace, name: str) -> Path:
    """Return the weights file of a guidance network."""
    return workspace.models / "guidance" / f"{name}.safetensors"


def build_critic(name: str, width: int, input_px: int) -> nn.Module:
    """Return an untrained guidance network by its name."""
    kind = AgeRegressor if name == AGE_REGRESSOR else IdentityEmbedder
    return kind(width, input_px)


def load_guidance(
    workspace: Workspace, device: torch.device, lpips_weights: Path | None = None
) -> Guidance:
    """Load the networks, frozen.

    Args:
        workspace: Holds what the stage distill trained.
        device: Where they run.
        lpips_weights: AlexNet's weights, verified, for LPIPS; None: there is none.

    Raises:
        WeightsError: One is absent or is of another kind.
    """
    networks = []
    for name in (AGE_REGRESSOR, IDENTITY_EMBEDDER):
        path = guidance_path(workspace, name)
        card = read_card(path)
        if card.get("kind") != name:
            raise WeightsError(
                f"Expected the weights of {name} at {path}; found {card.get('kind', 'no card')}. "
                "Run the stage distill."
            )
        network = build_critic(name, card["width"], card["input_px"])
        load_weights(network, path)
        networks.append(network.to(device).eval().requires_grad_(False))
    lpips = None if lpips_weights is None else load_lpips(lpips_weights).to(device)
    regressor, embedder = networks
    return Guidance(regressor, embedder, lpips)


def lpips_message(config: "TrainConfig") -> str | None:
    """Return what a run has to say of LPIPS: that a weight without a network is no loss."""
    if config.losses.lpips and config.lpips_weights is None:
        return (
            f"train.losses.lpips is {config.losses.lpips:g}, but train.lpips_weights names no "
            "file: trained without LPIPS. `agetf models list` says where AlexNet's weights "
            "(alexnet-lpips) are; or set train.losses.lpips=0."
        )
    if config.lpips_weights is not None and not config.losses.lpips:
        return "train.lpips_weights is given, but train.losses.lpips is 0: LPIPS was not used."
    return None


def fit_age_regressor(
    data: FaceData, network: nn.Module, settings: FitSettings, checkpoint: Path, identity: str
) -> list[float]:
    """Train the age regressor on labels, each as wide as it is unsure. Returns the losses."""
    device = next(network.parameters()).device
    probabilities = _mixed_probabilities(data.groups)

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.multinomial(probabilities, len(indices), True, generator=generator)
        items = drawn.numpy()
        images = _views(data, items, generator).to(device)
        ages = torch.from_numpy(data.ages_years[items]).to(device)
        variances = torch.from_numpy(data.variances_years2[items]).to(device)
        target = soft_age_target(ages, variances.sqrt().clamp(2, 12), NUM_AGE_BINS)
        with _fast(device):
            logits = network(images)
        entropy = -(target * torch.log_softmax(logits, dim=1)).sum(dim=1)
        distance = (expected_age(logits) - ages).abs() / 10
        return weighted_mean(entropy + distance, 1 / (1 + variances / 64))

    return fit(network, loss_of, len(data), settings, checkpoint, identity, "age regressor")


def fit_identity_embedder(
    data: FaceData, network: nn.Module, settings: FitSettings, checkpoint: Path, identity: str
) -> list[float]:
    """Train the embedder: two views of a person are nearer than views of others in the batch.

    The second view is another image of the subject, at another age, where there is one; else the
    same image, altered. Source: NT-Xent, Chen et al. 2020. Returns the losses.
    """
    device = next(network.parameters()).device
    people, counts = np.unique(data.identities, return_counts=True)
    members = {int(person): np.flatnonzero(data.identities == person) for person in people}
    # Subjects seen at several ages teach what stays; they come first while there are enough.
    several = people[counts > 1]
    pool = several if len(several) >= settings.batch_size else people

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        chosen = pool[indices.numpy() % len(pool)]
        pairs = [_two_of(members[int(person)], generator) for person in chosen]
        first, second = np.array(pairs).T
        views = torch.cat([_views(data, first, generator), _views(data, second, generator)])
        with _fast(device):
            z_ND = network(views.to(device))
        same = torch.from_numpy(np.tile(chosen, 2)).to(device)
        return _contrast(z_ND, same)

    return fit(network, loss_of, len(pool), settings, checkpoint, identity, "identity embedder")


def measure_age_mae(network: nn.Module, data: FaceData) -> float | None:
    """Return the mean absolute error against the labels in years; None without images."""
    if not len(data):
        return None
    device = next(network.parameters()).device
    errors = []
    with torch.inference_mode():
        for start in range(0, len(data), 128):
            items = np.arange(start, min(start + 128, len(data)))
            images = to_tensor(data.pick(items, np.ones(len(items), bool))).to(device)
            read = expected_age(network(images)).cpu().numpy()
            errors.append(np.abs(read - data.ages_years[items]))
    return float(np.concatenate(errors).mean())


def measure_same_person_auc(network: nn.Module, data: FaceData) -> float | None:
    """Return the share of (same person, other person) pairs of cosines in the right order."""
    if not len(data):
        return None
    device = next(network.parameters()).device
    with torch.inference_mode():
        z = torch.cat(
            [
                network(to_tensor(data.pick(items, np.ones(len(items), bool))).to(device)).cpu()
                for items in np.array_split(np.arange(len(data)), -(-len(data) // 128))
            ]
        )
    cosines = (z @ z.T).numpy()
    same = data.identities[:, None] == data.identities[None]
    upper = np.triu(np.ones_like(same), 1)
    genuine, impostor = cosines[same & upper], np.sort(cosines[~same & upper])
    if not len(genuine) or not len(impostor):
        return None
    return float((np.searchsorted(impostor, genuine) / len(impostor)).mean())


def _fast(device: torch.device) -> torch.autocast:
    """bf16 where the hardware computes it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_bf16(device))


def _mixed_probabilities(groups: np.ndarray) -> Tensor:
    """Half balanced over age groups, half as the corpus is: rare ages count, common ones too."""
    balanced = torch.from_numpy(balanced_probabilities(groups))
    return 0.5 * balanced + 0.5 / len(groups)


def _two_of(members: np.ndarray, generator: torch.Generator) -> tuple[int, int]:
    order = torch.randperm(len(members), generator=generator).tolist()
    return int(members[order[0]]), int(members[order[1 if len(members) > 1 else 0]])


def _views(data: FaceData, items: np.ndarray, generator: torch.Generator) -> Tensor:
    """Return altered images, float32 (N, 3, S, S): what age and identity must not depend on."""
    enhanced = (torch.rand(len(items), generator=generator) < 0.5).numpy()
    x = to_tensor(data.pick(items, enhanced))
    N, _, S, _ = x.shape

    def some(share: float) -> Tensor:
        return (torch.rand(N, generator=generator) < share)[:, None, None, None]

    x = torch.where(some(0.5), x.flip(3), x)
    x = torch.where(some(0.1), x.mean(dim=1, keepdim=True).expand_as(x), x)
    coarse = F.interpolate(x, (S // 2, S // 2), mode="area")
    x = torch.where(some(0.2), F.interpolate(coarse, (S, S), mode="bilinear"), x)
    gain = 1 + 0.15 * (2 * torch.rand(N, 3, 1, 1, generator=generator) - 1)
    noise = 0.03 * torch.randn(x.shape, generator=generator)
    dx, dy = (int(v) for v in torch.randint(-2, 3, (2,), generator=generator))
    return (x.roll((dy, dx), dims=(2, 3)) * gain + noise * some(0.5)).clamp(-1, 1)


def _contrast(z_ND: Tensor, person_N: Tensor) -> Tensor:
    """Supervised contrast: views of one person against all other views of the batch."""
    scores = z_ND @ z_ND.T / _TEMPERATURE
    itself = torch.eye(len(z_ND), dtype=torch.bool, device=z_ND.device)
    scores = scores.masked_fill(itself, -1e4)
    positive = (person_N[:, None] == person_N[None]) & ~itself
    log_share = torch.log_softmax(scores, dim=1)
    return -((log_share * positive).sum(dim=1) / positive.sum(dim=1).clamp(min=1)).mean()
