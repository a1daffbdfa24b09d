"""How the enhancement networks are run: their precision, and small batches side by side.

On a CPU the gain comes from bfloat16 over channels-last weights, not from large batches, and from
batches side by side (`agetf_pipeline.core.side_by_side`).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from agetf_pipeline.core.devices import computes_bf16
from agetf_pipeline.core.side_by_side import map_batches as map_batches

_LOGGER = logging.getLogger(__name__)
Precision = Literal["fp32", "bf16"]


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
