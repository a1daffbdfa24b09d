"""Training of the evaluators, on faces that no other network of the pipeline has seen.

Shapes: N faces, B batch, C H W image, D embedding, P people.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agetf_pipeline.config.evaluate import TrainEvaluatorsConfig
from agetf_pipeline.core.fitting import FitSettings, fit
from agetf_pipeline.core.weights import read_card, save_weights
from agetf_pipeline.evaluation.discriminant import fisher_discriminant
from agetf_pipeline.evaluation.judges import AGE_KIND, IDENTITY_KIND, to_input
from agetf_pipeline.evaluation.networks import NUM_AGE_BINS, AgeEstimator, IdentityEmbedder

_LABEL_SIGMA_YEARS = 3.0
_COSINE_SCALE = 16.0
_COSINE_MARGIN = 0.15


@dataclass(frozen=True)
class LabelledFaces:
    """Faces with what the evaluators learn from them.

    Attributes:
        faces: uint8 (N, S, S, 3), RGB.
        ages_years: float32 (N,).
        people: int64 (N,), index of the person, 0 to P - 1.
        source: Where they come from, for the card: `synthetic` or `workspace corpus`.
        version: Content hash of what they were made from.
        traits: float32 (N, T), what makes the person of each face this one; None where nobody
            knows, as of photographs.
        attributes: str (N,) by name, the true values of `attributes.ATTRIBUTES`; likewise.
    """

    faces: np.ndarray
    ages_years: np.ndarray
    people: np.ndarray
    source: str
    version: str
    traits: np.ndarray | None = None
    attributes: Mapping[str, np.ndarray] | None = None


class _TraitReader(nn.Module):
    """The embedder with a linear map to the traits of people; only the embedder is kept."""

    def __init__(self, embedder: IdentityEmbedder, embedding_dim: int, num_traits: int) -> None:
        super().__init__()
        self.embedder = embedder
        self.head = nn.Linear(embedding_dim, num_traits)

    def forward(self, faces_BCHW: Tensor) -> Tensor:
        """Return standardised traits (B, T)."""
        return self.head(self.embedder.features(faces_BCHW))


class _CosineClassifier(nn.Module):
    """The embedder with a direction per person of the training set; only the embedder is kept."""

    def __init__(self, embedder: IdentityEmbedder, num_people: int, embedding_dim: int) -> None:
        super().__init__()
        self.embedder = embedder
        self.directions = nn.Parameter(torch.randn(num_people, embedding_dim) * 0.1)

    def forward(self, faces_BCHW: Tensor) -> Tensor:
        """Return cosines to every person's direction (B, P)."""
        return self.embedder(faces_BCHW) @ F.normalize(self.directions, dim=-1).T


def age_loss(log_p_BK: Tensor, ages_B: Tensor) -> Tensor:
    """Return the mean loss of age distributions: soft-label cross-entropy, plus their mean's error.

    Args:
        log_p_BK: Log-probabilities of the ages 0..100 (B, 101).
        ages_B: True ages in years (B,).

    Source: label distribution learning with an expectation term (Gao et al., 2018, DLDL-v2).
    """
    bins_K = torch.arange(log_p_BK.shape[1], device=log_p_BK.device, dtype=log_p_BK.dtype)
    squared = ((bins_K[None] - ages_B[:, None]) / _LABEL_SIGMA_YEARS) ** 2
    target_BK = (-0.5 * squared).softmax(dim=-1)
    cross_entropy = -(target_BK * log_p_BK).sum(-1).mean()
    error = (log_p_BK.exp() @ bins_K - ages_B).abs().mean()
    return cross_entropy + 0.2 * error


def identity_loss(cosines_BP: Tensor, people_B: Tensor) -> Tensor:
    """Return the large-margin cosine loss of cosines to each person's direction (B, P).

    Source: Wang et al., "CosFace" (2018), equation 4.
    """
    margin = F.one_hot(people_B, cosines_BP.shape[1]).to(cosines_BP.dtype) * _COSINE_MARGIN
    return F.cross_entropy(_COSINE_SCALE * (cosines_BP - margin), people_B)


def train_age_estimator(
    data: LabelledFaces,
    config: TrainEvaluatorsConfig,
    path: Path,
    checkpoint: Path,
    identity: str,
    device: torch.device,
) -> list[float]:
    """Train the age estimator and write its weights, unless the file already is this training's.

    Args:
        data: Faces and ages.
        config: Size and length of the training.
        path: Weights file to write.
        checkpoint: Of the unfinished training; removed when the weights are written.
        identity: Fingerprint of data, architecture and settings.
        device: Where it runs.

    Returns:
        The loss of every step; empty where the weights stood already.
    """
    if is_trained(path, identity):
        return []
    torch.manual_seed(config.seed)
    module = AgeEstimator(config.width).to(device)
    ages = torch.from_numpy(data.ages_years).float().clamp(0, NUM_AGE_BINS - 1).to(device)

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        faces = to_input(data.faces[indices.numpy()], config.input_px, device)
        return age_loss(module(augment(faces, generator)), ages[indices.to(device)])

    losses = fit(
        module, loss_of, len(data.faces), fit_settings(config), checkpoint, identity,
        "the evaluation age estimator",
    )  # fmt: skip
    save_evaluator(path, module, {"kind": AGE_KIND}, data, config, identity, checkpoint)
    return losses


def train_identity_embedder(
    data: LabelledFaces,
    config: TrainEvaluatorsConfig,
    path: Path,
    checkpoint: Path,
    identity: str,
    device: torch.device,
) -> list[float]:
    """Train the identity embedder; arguments and result as of `train_age_estimator`.

    Where the traits of people are known, it learns to tell them: some forty numbers of each face
    say far more than which of two thousand people it is. (With 2700 drawn faces, a classifier of
    people left 2 % of the demo's real pairs of one person above the threshold at a false accept
    rate of 1e-3; the traits of 4400, and Fisher's discriminant after them, leave 56 %.)
    Of photographs nobody knows the traits: people are classified, with a margin between them.
    """
    if is_trained(path, identity):
        return []
    torch.manual_seed(config.seed + 1)
    embedder = IdentityEmbedder(config.width, config.embedding_dim)
    module, score = _identity_task(embedder, data, config, device)

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        faces = to_input(data.faces[indices.numpy()], config.input_px, device)
        # Faces are aligned alike everywhere: moving them would hide how far apart eyes are.
        return score(module(augment(faces, generator, moved=False)), indices.to(device))

    losses = fit(
        module, loss_of, len(data.faces),
        fit_settings(config, config.num_identity_steps, seed_offset=1, weight_decay=0.05),
        checkpoint, identity, "the evaluation identity embedder",
    )  # fmt: skip
    _fit_discriminant(embedder, data, config, device)
    card = {"kind": IDENTITY_KIND, "embedding_dim": config.embedding_dim}
    save_evaluator(path, embedder, card, data, config, identity, checkpoint)
    return losses


def _identity_task(
    embedder: IdentityEmbedder,
    data: LabelledFaces,
    config: TrainEvaluatorsConfig,
    device: torch.device,
) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    """Return the module to train, and its loss from outputs and the faces' indices."""
    if data.traits is None:
        people = torch.from_numpy(data.people).to(device)
        classifier = _CosineClassifier(embedder, int(data.people.max()) + 1, config.embedding_dim)
        return classifier.to(device), lambda cosines, i: identity_loss(cosines, people[i])
    spread = np.maximum(data.traits.std(axis=0), 1e-6)
    traits = torch.from_numpy((data.traits - data.traits.mean(axis=0)) / spread).float().to(device)
    reader = _TraitReader(embedder, config.embedding_dim, traits.shape[1])
    return reader.to(device), lambda told, i: 4 * F.mse_loss(told, traits[i])


@torch.inference_mode()
def _fit_discriminant(
    embedder: IdentityEmbedder,
    data: LabelledFaces,
    config: TrainEvaluatorsConfig,
    device: torch.device,
) -> None:
    """Set the embedder's last map from its features of the faces; few faces leave it as it was."""
    embedder.eval()
    parts = [
        embedder.features(to_input(data.faces[start : start + 64], config.input_px, device))
        for start in range(0, len(data.faces), 64)
    ]
    found = fisher_discriminant(torch.cat(parts).cpu().numpy(), data.people)
    if found is None:
        return
    matrix = torch.from_numpy(found.matrix.T)
    embedder.discriminant.weight.copy_(matrix)
    embedder.discriminant.bias.copy_(-(matrix @ torch.from_numpy(found.centre)))


def augment(faces_BCHW: Tensor, generator: torch.Generator, moved: bool = True) -> Tensor:
    """Return faces flipped, shifted, zoomed, relit and blurred at random, in [-1, 1] (B, 3, H, W).

    Renderings are softer than photographs: an estimator that never saw a soft image would read
    softness as smooth, young skin.

    Args:
        faces_BCHW: Faces in [-1, 1].
        generator: Of the draws.
        moved: Without it, faces are flipped, but neither shifted nor zoomed.
    """
    batch, _, height, width = faces_BCHW.shape
    device = faces_BCHW.device
    draw = torch.rand(batch, 8, generator=generator).to(device)
    flipped = (draw[:, 1] >= 0.5)[:, None, None, None]
    x = torch.where(flipped, faces_BCHW.flip(-1), faces_BCHW)
    if moved:
        theta = torch.zeros(batch, 2, 3, device=device)
        theta[:, 0, 0] = theta[:, 1, 1] = 1 + 0.12 * (draw[:, 0] - 0.5)
        theta[:, :, 2] = 0.12 * (draw[:, 2:4] - 0.5)
        grid = F.affine_grid(theta, [batch, 3, height, width], align_corners=False)
        x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    soft = F.interpolate(F.avg_pool2d(x, 2), (height, width), mode="bilinear", align_corners=False)
    mix = (draw[:, 4] * 1.6 - 0.8).clamp(0, 1)[:, None, None, None]
    x = x + mix * (soft - x)
    contrast = 1 + 0.3 * (draw[:, 5] - 0.5)[:, None, None, None]
    light = 0.2 * (draw[:, 6] - 0.5)[:, None, None, None]
    # Some old photographs have no colour, some little.
    paled = ((draw[:, 7] < 0.2) * (draw[:, 7] * 10).clamp(max=1))[:, None, None, None]
    x = x + paled * (x.mean(dim=1, keepdim=True) - x)
    return (x * contrast + light).clamp(-1, 1)


def fit_settings(
    config: TrainEvaluatorsConfig,
    num_steps: int | None = None,
    seed_offset: int = 0,
    weight_decay: float = 0.01,
) -> FitSettings:
    """Return how an evaluator is trained: for so many steps, or as many as the config says."""
    return FitSettings(
        num_steps or config.num_steps,
        config.batch_size,
        config.lr,
        weight_decay,
        seed=config.seed + seed_offset,
    )


def is_trained(path: Path, identity: str) -> bool:
    """Whether a weights file is what a training of this identity makes."""
    return path.exists() and read_card(path).get("identity") == identity


def save_evaluator(
    path: Path,
    module: nn.Module,
    kind: Mapping[str, Any],
    data: LabelledFaces,
    config: TrainEvaluatorsConfig,
    identity: str,
    checkpoint: Path,
) -> None:
    """Write an evaluator's weights with its card, and remove the checkpoint of its training."""
    card = {
        **kind,
        "width": config.width,
        "input_px": config.input_px,
        "trained_on": data.source,
        "num_faces": len(data.faces),
        "num_people": int(data.people.max()) + 1,
        "identity": identity,
    }
    save_weights(path, module, card)
    checkpoint.unlink(missing_ok=True)


def enough(data: LabelledFaces, config: TrainEvaluatorsConfig) -> str | None:
    """Return why the faces do not suffice to train an evaluator; None where they do."""
    num_faces = len(data.faces)
    if num_faces < config.min_images:
        return (
            f"{num_faces} labelled faces with a known age and person; "
            f"train_evaluators.min_images asks for {config.min_images}"
        )
    if not math.isfinite(float(data.ages_years.sum())):
        return "some labelled ages are not finite numbers"
    return None
