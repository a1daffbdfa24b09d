"""How many faces go through a network at once, and how many batches side by side.

The rule is a function of the settings, the network and the kind of device alone: a size that was
timed on the machine, or that followed its cores, would differ from run to run, and with it the last
digits of what is stored. What a machine has more of runs more batches side by side, as far as the
memory that the settings allow goes.
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

BYTES_A_PIXEL = {"full": 600, "tiny": 200}
"""Memory of a face's activations, by a pixel of the network's input: the costliest of each size.

Measured in fp32 on a CPU at 224 px (greatest memory of the process in a pass of 12 faces less that
of 4, of which PyTorch's own allocator kept nothing): VGG16 512 bytes a pixel (two maps of 64
channels), ResNet50 207, MiVOLO-d1 360; the tiny ones below 200. With bfloat16 it is about half. The
pixels that the network is given are in it.
"""


def batch_sizes(config: PipelineConfig) -> dict[str, int]:
    """Return the faces per forward pass of every configured expert, by its name.

    `predict.batch_size` where it is given, else what suits its input size and the device, within
    `predict.max_memory_mib`.
    """
    device = resolve_device(config.runtime.device)
    return {
        name: config.predict.batch_size
        or within(
            config.predict.max_memory_mib,
            chosen_size(expert.input_px, device, _share(name, expert)),
            face_mib(name, expert),
        )
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


def within(max_memory_mib: int, size: int, each_mib: float) -> int:
    """Return the largest half, quarter... of `size` faces that the memory holds; at least 1."""
    while size > 1 and size * each_mib > max_memory_mib:
        size //= 2
    return size


def face_mib(name: str, expert: ExpertConfig) -> float:
    """Return the memory of one face's activations in an expert, MiB, in fp32."""
    pixels = expert.input_px * expert.input_px
    return pixels * BYTES_A_PIXEL[expert.size] * _share(name, expert) / 2**20


def num_side_by_side(config: PipelineConfig) -> int:
    """Return how many batches may be read at once within `predict.max_memory_mib`, at least 1.

    A batch is read by one expert after the other: the costliest one counts.
    """
    sizes = batch_sizes(config)
    costs = [
        sizes[name] * face_mib(name, expert)
        for name, expert in config.train_experts.experts.items()
    ]
    return max(1, int(config.predict.max_memory_mib / max(costs)))


def _share(name: str, expert: ExpertConfig) -> int:
    share = getattr(kind_of(name, expert), "batch_share", None)
    return 1 if share is None else share(expert.input_px)
