"""What each size of the AgeTransformer costs: parameters, operations, memory. Nothing is computed.

The passes are traced on PyTorch's meta device, which has shapes and no values.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.sizes import SIZES, ModelSettings, settings_of

_MIB = 2**20


@dataclass(frozen=True)
class ModelCost:
    """What a size costs, for one face.

    Attributes:
        name: The size's name.
        settings: Its settings.
        num_ages: How many renderings were counted.
        num_parameters: Of the whole model.
        encoder_gflop: 1e9 floating-point operations (a multiply-add is two) of the one encoding.
        decoder_gflop: Those of all renderings.
        weights_mib: The parameters and buffers in fp32, MiB.
        activations_mib: The most that tensors of one pass in fp32 hold at a time, MiB, without
            weights and without what convolutions use as scratch.
    """

    name: str
    settings: ModelSettings
    num_ages: int
    num_parameters: int
    encoder_gflop: float
    decoder_gflop: float
    weights_mib: float
    activations_mib: float

    @property
    def gflop(self) -> float:
        """All operations: one encoding and the renderings."""
        return self.encoder_gflop + self.decoder_gflop


def summarise(names: Sequence[str] = (), num_ages: int = 10) -> list[ModelCost]:
    """Return the costs of the sizes named, or of all.

    Raises:
        ConfigError: There is no size of such a name.
    """
    return [cost_of(name, settings_of(name), num_ages) for name in names or SIZES]


def cost_of(name: str, settings: ModelSettings, num_ages: int = 10) -> ModelCost:
    """Count one face at `num_ages` ages."""
    with torch.device("meta"):
        model = AgeTransformer(settings).eval()
        image_BCHW = torch.empty(1, 3, settings.size_px, settings.size_px)
        ages_BA = torch.empty(1, num_ages)
    with torch.no_grad(), _PeakBytes() as memory:
        encoded, encoder_flop = _count_flop(lambda: model.encode(image_BCHW))
        _, decoder_flop = _count_flop(lambda: model.decode(encoded, ages_BA))
    tensors = [*model.parameters(), *model.buffers()]
    return ModelCost(
        name,
        settings,
        num_ages,
        sum(parameter.numel() for parameter in model.parameters()),
        encoder_flop / 1e9,
        decoder_flop / 1e9,
        sum(tensor.nbytes for tensor in tensors) / _MIB,
        memory.peak / _MIB,
    )


def table_lines(costs: Sequence[ModelCost]) -> list[str]:
    """Return the costs as lines of a table."""
    num_ages = costs[0].num_ages
    head = ("size", "px", "parameters", "encoder", f"{num_ages} ages", "together", "weights",
            "activations", "channels of the levels (blocks)")  # fmt: skip
    units = ("", "", "million", "GFLOP", "GFLOP", "GFLOP", "MiB fp32", "MiB fp32", "fine to 8 x 8")
    rows = [head, units]
    for cost in costs:
        levels = zip(cost.settings.channels, cost.settings.blocks, strict=True)
        rows.append((
            cost.name, str(cost.settings.size_px), f"{cost.num_parameters / 1e6:.2f}",
            f"{cost.encoder_gflop:.2f}", f"{cost.decoder_gflop:.2f}", f"{cost.gflop:.2f}",
            f"{cost.weights_mib:.0f}", f"{cost.activations_mib:.0f}",
            " ".join(f"{width}({count})" for width, count in levels),
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return [
        "  ".join(
            text.ljust(width) if column in (0, len(head) - 1) else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _count_flop(work: Callable[[], Any]) -> tuple[Any, int]:
    with FlopCounterMode(display=False) as counter:
        result = work()
    return result, counter.get_total_flops()


class _PeakBytes(TorchDispatchMode):
    """Follows the bytes of all tensors made within it, and keeps their highest sum in `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {
            leaf.untyped_storage()._cdata
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, Tensor)
        }
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                self._follow(leaf.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, num_bytes = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self._now += num_bytes
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, key, num_bytes)

    def _forget(self, key: int, num_bytes: int) -> None:
        self._alive.discard(key)
        self._now -= num_bytes
