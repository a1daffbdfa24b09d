"""Attributes that ageing should keep, and the small network that reads them.

What belongs here is what the same person has at every age, whatever the years do:

- `gender`;
- `glasses`: nobody asked for them to be put on or taken off (small children wear them less often,
  but a picture of an adult with glasses, made a child's, is expected to keep them);
- `skin_tone`: fair, medium or dark, of the skin itself. Skin dulls with age, by far less than what
  parts these three.

What does not: the hair's colour (it greys from 30 on), its cut (a baby has little hair, an old man
less), facial hair (none before 19), balding. There the target age decides what should be seen, and
a reader of the source cannot know. The eyes' colour stays, but is a matter of two pixels at 64 px.

Shapes: N faces, B batch, C channels, H W image, K classes of all attributes laid end to end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import load_weights, read_card
from agetf_pipeline.evaluation.judges import to_input
from agetf_pipeline.evaluation.networks import GRID, trunk

if TYPE_CHECKING:
    from agetf_pipeline.synthetic.identity import Identity

ATTRIBUTE_KIND = "evaluation_attribute_classifier"
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gender": ("female", "male"),
    "glasses": ("None", "Normal", "Dark"),
    "skin_tone": ("fair", "medium", "dark"),
}
"""Values of each attribute, in the order of the network's classes."""

_SKIN_LIMITS = (0.25, 0.55)  # of Identity.skin_tone: about a third of the people on either side
_BATCH = 64


class AttributeClassifier(nn.Module):
    """Reads the attributes of faces: a trunk, and a linear map to the classes of all of them."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.trunk = trunk(width)
        self.head = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(4 * width * GRID**2, 4 * width), nn.SiLU(),
            nn.Linear(4 * width, num_classes),
        )  # fmt: skip

    def forward(self, faces_BCHW: Tensor) -> Tensor:
        """Return logits (B, K), attribute after attribute, from faces in [-1, 1]."""
        return self.head(F.adaptive_avg_pool2d(self.trunk(faces_BCHW), GRID).flatten(1))


@dataclass(frozen=True)
class Accuracy:
    """How often an attribute was read rightly, of faces of people not seen in training.

    Attributes:
        accuracy: Share of the faces, 0 to 1.
        n: Faces.
        synthetic: Whether they were drawn.
    """

    accuracy: float
    n: int
    synthetic: bool


@dataclass(frozen=True)
class ClassifierReader:
    """An attribute classifier at work (`panel.AttributeReader`).

    Attributes:
        version: sha256 of its weights.
        trained_on: What its card says.
        accuracy: Its own, by attribute; empty where its card does not say.
    """

    version: str
    trained_on: str
    accuracy: dict[str, Accuracy]
    _module: nn.Module
    _attributes: dict[str, tuple[str, ...]]
    _input_px: int
    _device: torch.device

    def read(self, faces_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Return the likeliest value of each attribute by its name, str (N,), of uint8 faces."""
        logits = read_logits(self._module, faces_NHWC, self._input_px, self._device)
        if not len(faces_NHWC):
            return {name: np.empty(0, "U1") for name in self._attributes}
        return {
            name: np.asarray(self._attributes[name])[part.argmax(axis=1)]
            for name, part in split_classes(logits, self._attributes).items()
        }


@torch.inference_mode()
def read_logits(
    module: nn.Module, faces_NHWC: np.ndarray, input_px: int, device: torch.device
) -> np.ndarray:
    """Return a classifier's logits, float32 (N, K), of uint8 faces (N, H, W, 3) of any side."""
    if not len(faces_NHWC):
        return np.empty((0, 1), np.float32)

    def classify(rows: slice) -> torch.Tensor:
        return module(to_input(faces_NHWC[rows], input_px, device)).cpu()

    parts = in_batches(classify, len(faces_NHWC), _BATCH, Work("reading attributes"))
    return torch.cat([part for _, part in parts]).numpy()


def split_classes(logits_NK, attributes: Mapping[str, tuple[str, ...]]) -> dict:
    """Return the columns of each attribute, by its name, of an array or a tensor (N, K)."""
    parts, start = {}, 0
    for name, values in attributes.items():
        parts[name] = logits_NK[:, start : start + len(values)]
        start += len(values)
    return parts


def num_classes(attributes: Mapping[str, tuple[str, ...]]) -> int:
    """Return the number K of classes of all attributes together."""
    return sum(len(values) for values in attributes.values())


def attributes_of(identity: "Identity") -> dict[str, str]:
    """Return the true value of every attribute of a drawn person."""
    tone = int(np.searchsorted(_SKIN_LIMITS, identity.skin_tone, side="right"))
    return {
        "gender": identity.gender,
        "glasses": identity.glasses,
        "skin_tone": ATTRIBUTES["skin_tone"][tone],
    }


def load_attribute_reader(path: Path, device: torch.device) -> ClassifierReader:
    """Load an attribute classifier.

    Args:
        path: Its weights, written by `evaluation.attribute_training`.
        device: Where it runs.

    Raises:
        WeightsError: The file is absent, does not fit, or is of another kind.
    """
    card = read_card(path)
    if card.get("kind") != ATTRIBUTE_KIND:
        raise WeightsError(
            f"Expected weights of kind {ATTRIBUTE_KIND} at {path}; found {card.get('kind')!r}. "
            "Supply weights made by the stage train_evaluators."
        )
    attributes = {name: tuple(values) for name, values in card["attributes"].items()}
    module = AttributeClassifier(card["width"], num_classes(attributes))
    version = load_weights(module, path)
    accuracy = {
        name: Accuracy(float(own["accuracy"]), int(own["n"]), bool(own["synthetic"]))
        for name, own in card.get("accuracy", {}).items()
    }
    return ClassifierReader(
        version, card["trained_on"], accuracy, module.eval().to(device), attributes,
        card["input_px"], device,
    )  # fmt: skip
