"""How many faces go through a network at once, where the config does not say.

The rule is a function of the settings and the kind of device alone: a size that was timed on the
machine would differ from run to run, and with it the last digits of what is stored.
"""

from typing import TYPE_CHECKING

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.devices import resolve_device

if TYPE_CHECKING:
    import torch

# Pixels of a batch. On a CPU batches gain little beyond 16 faces of 224 px, and cost memory; on a
# GPU small ones leave it idle.
_PIXELS = {"cpu": 16 * 224 * 224, "cuda": 256 * 224 * 224}
_MOST = {"cpu": 32, "cuda": 1024}
_JANUS_SHARE = 8
"""Janus keeps the activations of 576 image tokens and 101 answers: an eighth of the batch."""


def batch_sizes(config: PipelineConfig) -> dict[str, int]:
    """Return the faces per forward pass of every configured expert, by its name.

    `predict.batch_size` where it is given, else what suits its input size and the device.
    """
    device = resolve_device(config.runtime.device)
    return {
        name: config.predict.batch_size
        or chosen_size(expert.input_px, device, is_janus=(expert.kind or name) == "janus")
        for name, expert in config.train_experts.experts.items()
    }


def chosen_size(input_px: int, device: "torch.device", is_janus: bool = False) -> int:
    """Return a power of two, at least 1: the faces of `input_px` that the device's pixels allow."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    budget = _PIXELS[kind] / (input_px * input_px)
    if is_janus and input_px >= 224:  # the tiny one has 16 tokens
        budget /= _JANUS_SHARE
    most = max(1, min(_MOST[kind], int(budget)))
    return 1 << (most.bit_length() - 1)
