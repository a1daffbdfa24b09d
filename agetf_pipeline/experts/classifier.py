"""An expert that answers with a distribution over 101 ages: ResNet50 and VGG16."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from agetf_pipeline.config.experts import ExpertConfig, NetworkSize
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import load_state, read_state
from agetf_pipeline.experts.base import Readings, readings_from_distribution
from agetf_pipeline.experts.heads import expectation, mean_variance_loss
from agetf_pipeline.experts.legacy import recognise_legacy
from agetf_pipeline.experts.own_weights import own_card
from agetf_pipeline.experts.preprocess import faces_to_tensor, normalise, profile_named


class ClassifierExpert:
    """A network with 101 logits as an age expert."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        input_px: int,
        profile: str,
        version: str,
        trained_on: str,
    ) -> None:
        self.name = name
        self.module = module.eval()
        self.input_px = input_px
        self.version = version
        self.trained_on = trained_on
        self._profile = profile_named(profile)
        self._network: Callable[[Tensor], Tensor] = self.module

    def keep_bf16_weights(self) -> None:
        """Keep the weights as autocast would cast them in every pass: the same ages, sooner."""
        for layer in self.module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.to(torch.bfloat16)

    def compile_network(self, cache: Path, batch_size: int) -> None:
        """Compile the network for batches of a size; see `core.compiling`."""
        from agetf_pipeline.core.compiling import TAG, compiled

        device = next(self.module.parameters()).device
        self._network = compiled(self.module, cache, batch_size, device)
        self.version += TAG

    @torch.inference_mode()
    def read(self, faces_NHWC: np.ndarray) -> Readings:
        """Read distributions over ages; see `AgeExpert.read`."""
        device = next(self.module.parameters()).device
        x_NCHW = faces_to_tensor(faces_NHWC, device, self.input_px)
        logits_NA = self._network(normalise(x_NCHW, self._profile))
        return readings_from_distribution(logits_NA.float().softmax(1).cpu().numpy())


def load_classifier(
    kind: str,
    code_version: str,
    build: Callable[[NetworkSize], nn.Module],
    name: str,
    expert: ExpertConfig,
    path: Path,
    device: torch.device,
) -> ClassifierExpert:
    """Load a network with 101 logits, strictly.

    Weights written here say their own settings; the research code's checkpoints are recognised by
    their keys and read with the input that they were trained on; any others are torchvision's.

    Args:
        kind: Its architecture, as the card of our own weights names it.
        code_version: Of the file that builds it.
        build: Makes the network of a size.
        name: The expert's name in tables.
        expert: Its settings; a card in the weights says its own.
        path: The weights.
        device: Where it runs.

    Raises:
        WeightsError: The weights are damaged or of another architecture.
    """
    card = own_card(path, kind, expert)
    state = read_state(path)
    profile = str(card.get("profile", expert.profile))
    legacy = None if card else recognise_legacy(state, str(path))
    if legacy is None:
        module = build(card.get("size", expert.size))
    else:
        legacy.require(kind, expert, str(path))
        module, state, profile = legacy.build(), legacy.state, legacy.profile
    load_state(module, state, str(path))
    return ClassifierExpert(
        name,
        module.to(device),
        int(card.get("input_px", expert.input_px)),
        profile,
        f"{hash_file(path)[:12]}-{code_version}",
        str(card.get("trained_on", "published")),
    )


def classifier_loss(
    module: nn.Module, x_NCHW: Tensor, ages_N: Tensor, _genders_N: Tensor
) -> Tensor:
    """Return the mean-variance loss of a batch; see `kinds.Trainer.loss`."""
    return mean_variance_loss(module(x_NCHW), ages_N)


def classifier_ages(module: nn.Module, x_NCHW: Tensor) -> Tensor:
    """Return the expected ages of a batch in years, float (N,); see `kinds.Trainer.ages`."""
    return expectation(module(x_NCHW))[0]
