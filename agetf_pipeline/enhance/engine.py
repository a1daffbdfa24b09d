"""How the enhancement networks are run: their precision, and small batches side by side.

On a CPU the gain comes from bfloat16 over channels-last weights, not from large batches. Two
batches on one core each take no longer than one batch after the other on two, and stay as fast
where other work holds a core up: operators that are split must wait for their slowest part.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from agetf_pipeline.core.devices import computes_bf16

_LOGGER = logging.getLogger(__name__)
Precision = Literal["fp32", "bf16"]
S = TypeVar("S")
T = TypeVar("T")


def choose_precision(wanted: Precision, device: "torch.device | str") -> Precision:
    """Return bf16 where it is wanted and the device computes in it, else fp32."""
    if wanted == "bf16" and not computes_bf16(torch.device(device)):
        _LOGGER.warning("%s does not compute in bf16: the enhancers run in fp32", device)
        return "fp32"
    return wanted


def tag(precision: Precision) -> str:
    """Return what a network's version says of its precision: nothing for fp32."""
    return "-bf16" if precision == "bf16" else ""


class InFp32(nn.Module):
    """A module that computes in fp32 within autocast.

    For a network's last layer: bfloat16 has eight binary digits, so that between 0.5 and 1 its
    rounding alone would be as coarse as the picture's 255 steps.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return what the inner module makes of `x` in fp32."""
        with torch.autocast(x.device.type, enabled=False):
            return self.inner(x.float())


@contextmanager
def inference(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run networks without gradients, and under autocast where the precision is bf16."""
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        yield


def map_batches(
    function: Callable[[S], T], batches: Iterable[S], device: torch.device
) -> Iterator[T]:
    """Yield `function(batch)` of every batch in order.

    On a CPU as many batches run side by side as torch has threads, each on one of them.

    Args:
        function: Runs a network; called in other threads on a CPU.
        batches: All that there are.
        device: Of the network.
    """
    waiting = list(batches)
    num_threads = torch.get_num_threads()
    num_workers = min(num_threads, len(waiting))
    if device.type != "cpu" or num_workers < 2:
        yield from map(function, waiting)
        return
    # Batches that are left over would run on one core while the others idle.
    together = len(waiting) - len(waiting) % num_workers
    pool = ThreadPoolExecutor(num_workers, "network", lambda: torch.set_num_threads(1))
    try:
        with pool:
            yield from pool.map(function, waiting[:together])
    finally:
        torch.set_num_threads(num_threads)
    yield from map(function, waiting[together:])
