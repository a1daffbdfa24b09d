"""Training of the attribute classifier, on drawn faces whose attributes are known.

Photographs are not labelled with attributes here, and a classifier of drawings says nothing of
photographs: for them its weights are supplied.

Shapes: N faces, B batch, K classes of all attributes.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agetf_pipeline.config.evaluate import TrainEvaluatorsConfig
from agetf_pipeline.core.fitting import fit
from agetf_pipeline.evaluation.attributes import (
    ATTRIBUTE_KIND,
    ATTRIBUTES,
    AttributeClassifier,
    num_classes,
    read_logits,
    split_classes,
)
from agetf_pipeline.evaluation.judges import to_input
from agetf_pipeline.evaluation.training import (
    LabelledFaces,
    augment,
    fit_settings,
    is_trained,
    save_evaluator,
)

_UNSEEN_SHARE = 0.1
"""Of the people, whose faces measure the classifier and do not train it."""


def train_attribute_classifier(
    data: LabelledFaces,
    config: TrainEvaluatorsConfig,
    path: Path,
    checkpoint: Path,
    identity: str,
    device: torch.device,
) -> list[float]:
    """Train the attribute classifier; arguments and result as of `training.train_age_estimator`.

    Its card says how often it reads each attribute rightly on the faces of people whom it did not
    see: the last tenth of the drawn people.

    Raises:
        ValueError: The faces come without attributes.
    """
    if is_trained(path, identity):
        return []
    if data.attributes is None:
        raise ValueError("expected faces with known attributes")
    torch.manual_seed(config.seed + 2)
    module = AttributeClassifier(config.width, num_classes(ATTRIBUTES)).to(device)
    seen = np.flatnonzero(_seen(data.people))
    labels = {name: torch.from_numpy(codes).to(device) for name, codes in _codes(data).items()}

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        chosen = seen[indices.numpy()]
        faces = to_input(data.faces[chosen], config.input_px, device)
        logits = split_classes(module(augment(faces, generator)), ATTRIBUTES)
        return attribute_loss(logits, {name: codes[chosen] for name, codes in labels.items()})

    losses = fit(
        module, loss_of, len(seen), fit_settings(config, config.num_attribute_steps, 2),
        checkpoint, identity, "the evaluation attribute classifier",
    )  # fmt: skip
    card = {
        "kind": ATTRIBUTE_KIND,
        "attributes": ATTRIBUTES,
        "accuracy": _accuracy(module, data, config.input_px, device),
    }
    save_evaluator(path, module, card, data, config, identity, checkpoint)
    return losses


def attribute_loss(logits: dict[str, Tensor], codes: dict[str, Tensor]) -> Tensor:
    """Return the sum over attributes of the mean cross-entropy, logits (B, values), codes (B,)."""
    losses = [F.cross_entropy(logits[name], codes[name]) for name in codes]
    return torch.stack(losses).sum()


def _seen(people: np.ndarray) -> np.ndarray:
    """Whether each face trains, bool (N,): all but the last tenth of the people, at least one."""
    names = np.unique(people)
    unseen = names[-max(1, round(_UNSEEN_SHARE * len(names))) :]
    return ~np.isin(people, unseen)


def _codes(data: LabelledFaces) -> dict[str, np.ndarray]:
    """Return the place of each true value among its attribute's, int64 (N,) by name."""
    assert data.attributes is not None
    return {
        name: np.array([values.index(str(value)) for value in data.attributes[name]], np.int64)
        for name, values in ATTRIBUTES.items()
    }


def _accuracy(
    module: AttributeClassifier, data: LabelledFaces, input_px: int, device: torch.device
) -> dict[str, dict]:
    """Return accuracy, n and whether synthetic, by attribute, on the unseen people's faces."""
    unseen = np.flatnonzero(~_seen(data.people))
    logits = split_classes(read_logits(module, data.faces[unseen], input_px, device), ATTRIBUTES)
    return {
        name: {
            "accuracy": round(float((logits[name].argmax(axis=1) == codes[unseen]).mean()), 4),
            "n": len(unseen),
            "synthetic": data.source == "synthetic",
        }
        for name, codes in _codes(data).items()
    }
