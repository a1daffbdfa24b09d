"""What this CPU has for bf16, and how fast a large matrix product is on it."""

import platform
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.clock import Clock

if TYPE_CHECKING:
    import torch

_SIDE = 2048
_NUM_ROUNDS = 4


def cpu_name() -> str:
    """Return what this CPU calls itself; Linux tells."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def bf16_flags() -> list[str]:
    """Return which instructions for bf16 this CPU has; Linux on x86 alone tells."""
    flags = set(_cpuinfo().get("flags", "").split())
    return [name for name in ("amx_bf16", "avx512_bf16") if name in flags]


def bf16_instructions() -> str:
    """Say what this CPU has for bf16."""
    if not _cpuinfo():
        return "what this CPU has for bf16 is not known"
    found = bf16_flags()
    matrix = "bf16 matrix units" if "amx_bf16" in found else "no bf16 matrix units"
    return f"this CPU has {matrix} ({', '.join(found) or 'no bf16 instructions'})"


def _cpuinfo() -> dict[str, str]:
    """Return the fields of one core; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def bf16_gain() -> float:
    """Return what bf16 gains on one large matrix product: what this CPU can give at most."""
    import torch

    fp32, bf16 = (flops[1] for flops in matmul_flops(torch.float32, torch.bfloat16))
    return bf16 / fp32


def matmul_flops(*dtypes: "torch.dtype") -> list[tuple[float, float]]:
    """Return the FLOP/s of a large matrix product, as the ceiling of whatever computes with them.

    Args:
        dtypes: Measured in turns.

    Returns:
        For each: of wall clock, with as many threads as torch has, and of one core's time.
    """
    import torch

    clocks = [Clock() for _ in dtypes]
    for round_ in range(_NUM_ROUNDS):
        for dtype, clock in zip(dtypes, clocks, strict=True):
            square = torch.rand(_SIDE, _SIDE).to(dtype)
            if round_ == 0:
                torch.matmul(square, square)
            clock.time(partial(torch.matmul, square, square), 1)
    flop = 2 * _SIDE**3
    return [(flop / clock.wall_each_s, flop / clock.processor_each_s) for clock in clocks]
