"""How many faces go through a network at once, where the config does not say.

The rule is a function of the settings and the kind of device alone: a size that was timed on the
machine would differ from run to run, and with it the last digits of what is stored.
"""

from typing import TYPE_CHECKING

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.devices import resolve_device
from agetf_pipeline.experts.kinds import kind_of

if TYPE_CHECKING:
    import torch

# Pixels of a batch. On a CPU batches gain little beyond 16 faces of 224 px, and cost memory; on a
# GPU small ones leave it idle.
_PIXELS = {"cpu": 16 * 224 * 224, "cuda": 256 * 224 * 224}
_MOST = {"cpu": 32, "cuda": 1024}


def batch_sizes(config: PipelineConfig) -> dict[str, int]:
    """Return the faces per forward pass of every configured expert, by its name.

    `predict.batch_size` where it is given, else what suits its input size and the device.
    """
    device = resolve_device(config.runtime.device)
    return {
        name: config.predict.batch_size
        or chosen_size(expert.input_px, device, _share(name, expert))
        for name, expert in config.train_experts.experts.items()
    }


def chosen_size(input_px: int, device: "torch.device", share: int = 1) -> int:
    """Return a power of two, at least 1: the faces of `input_px` that the device's pixels allow.

    Args:
        input_px: Side of what the network sees.
        device: Where it runs.
        share: What one face costs, in faces of a classifier of that input.
    """
    kind = "cuda" if device.type == "cuda" else "cpu"
    budget = _PIXELS[kind] / (input_px * input_px)
    most = max(1, min(_MOST[kind], int(budget / share)))
    return 1 << (most.bit_length() - 1)


def _share(name: str, expert: ExpertConfig) -> int:
    share = getattr(kind_of(name, expert), "batch_share", None)
    return 1 if share is None else share(expert.input_px)
