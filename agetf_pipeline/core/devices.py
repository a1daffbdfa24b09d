"""Devices and threads: one place decides where networks run."""

import os
from typing import TYPE_CHECKING

from agetf_pipeline.core.errors import ConfigError

if TYPE_CHECKING:
    import torch


def prepare_process() -> None:
    """Set what has to stand in the environment before PyTorch is loaded.

    Threads that wait must sleep: on a machine whose cores are busy, waiting ones that spin made a
    training step of 70 ms take 1,800. Nothing that is called may report its use over the network.
    """
    for name, value in {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }.items():
        os.environ.setdefault(name, value)


def resolve_device(name: str) -> "torch.device":
    """Return the torch device that a config's `runtime.device` names.

    Args:
        name: `auto` (CUDA where there is one, else CPU), `cpu`, `cuda` or `cuda:<index>`.

    Raises:
        ConfigError: CUDA was asked for and there is none.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"Expected a CUDA device for runtime.device={name}; PyTorch sees none. "
            "Set runtime.device=cpu or auto, or check the driver with nvidia-smi."
        )
    return device


def set_num_threads(num_threads: int | None) -> None:
    """Cap the threads of torch's operators.

    Args:
        num_threads: Threads; None takes OMP_NUM_THREADS where it is set, else the cores that this
            process may use.
    """
    import torch

    configured = os.environ.get("OMP_NUM_THREADS", "")
    default = int(configured) if configured.isdigit() else len(os.sched_getaffinity(0))
    torch.set_num_threads(max(1, num_threads or default))


def computes_bf16(device: "torch.device") -> bool:
    """Whether a device computes in bfloat16 itself; emulated, it is slower than float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported()) if supported is not None else False
