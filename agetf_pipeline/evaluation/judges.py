"""The evaluators at work: saved networks that read ages and embed identities of images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import load_weights, read_card
from agetf_pipeline.evaluation.networks import AgeEstimator, IdentityEmbedder

AGE_KIND = "evaluation_age_estimator"
IDENTITY_KIND = "evaluation_identity_embedder"
_BATCH = 64


@dataclass(frozen=True)
class Judge:
    """A network outside training, with what made it.

    Attributes:
        module: The network, in evaluation mode.
        input_px: Side of the images that it takes.
        version: sha256 of its weights.
        trained_on: What its card says.
    """

    module: torch.nn.Module
    input_px: int
    version: str
    trained_on: str
    device: torch.device

    @torch.inference_mode()
    def outputs(self, images_NHWC: np.ndarray) -> np.ndarray:
        """Return the outputs for uint8 images (N, H, W, 3) of any size, float32 (N, ...)."""

        def run(rows: slice) -> torch.Tensor:
            return self.module(to_input(images_NHWC[rows], self.input_px, self.device)).cpu()

        parts = in_batches(run, len(images_NHWC), _BATCH, Work("judging by an evaluator"))
        return torch.cat([part for _, part in parts]).numpy()


def read_ages(judge: Judge, images_NHWC: np.ndarray) -> np.ndarray:
    """Return the mean age in years that the estimator reads, float64 (N,), from uint8 images."""
    if not len(images_NHWC):
        return np.empty(0)
    p_NK = np.exp(judge.outputs(images_NHWC).astype(np.float64))
    return p_NK @ np.arange(p_NK.shape[1]) / p_NK.sum(axis=1)


def embed(judge: Judge, images_NHWC: np.ndarray) -> np.ndarray:
    """Return unit identity embeddings, float64 (N, D), of uint8 images (N, H, W, 3)."""
    if not len(images_NHWC):
        return np.empty((0, 1))
    return judge.outputs(images_NHWC).astype(np.float64)


def to_input(images_NHWC: np.ndarray, size_px: int, device: torch.device) -> torch.Tensor:
    """Return uint8 images (N, H, W, 3) as floats in [-1, 1] (N, 3, size_px, size_px)."""
    x = torch.from_numpy(np.array(images_NHWC)).to(device).permute(0, 3, 1, 2).float()
    if x.shape[-2:] != (size_px, size_px):
        x = torch.nn.functional.interpolate(
            x, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False
        )
    return x / 127.5 - 1


def build(card: dict) -> torch.nn.Module:
    """Return the untrained network that a weights card describes.

    Raises:
        WeightsError: The card is of another kind of network.
    """
    kind = card.get("kind")
    if kind == AGE_KIND:
        return AgeEstimator(card["width"])
    if kind == IDENTITY_KIND:
        return IdentityEmbedder(card["width"], card["embedding_dim"])
    raise WeightsError(
        f"Expected weights of kind {AGE_KIND} or {IDENTITY_KIND}; found {kind!r}. Supply weights "
        "made by the stage train_evaluators."
    )


def load_judge(path: Path, kind: str, device: torch.device) -> Judge:
    """Load an evaluator.

    Args:
        path: Its weights, written by `evaluation.training`.
        kind: `AGE_KIND` or `IDENTITY_KIND`.
        device: Where it runs.

    Raises:
        WeightsError: The file is absent, does not fit, or is of another kind.
    """
    card = read_card(path)
    if card.get("kind") != kind:
        raise WeightsError(
            f"Expected weights of kind {kind} at {path}; found {card.get('kind')!r}. "
            "Supply weights made by the stage train_evaluators."
        )
    module = build(card)
    version = load_weights(module, path)
    return Judge(module.eval().to(device), card["input_px"], version, card["trained_on"], device)
