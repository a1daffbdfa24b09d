"""Devices and threads: one place decides where networks run."""

import os
from typing import TYPE_CHECKING

from agetf_pipeline.core.errors import ConfigError, DeviceLostError

if TYPE_CHECKING:
    import torch

_SHORT_OF_MEMORY = (
    "out of memory",  # CUDA, HIP, oneDNN
    "can't allocate memory",  # PyTorch's CPU allocator
    "not enough memory",  # the same on other systems
    "bad_alloc",
    "bad allocation",
    "cannot allocate memory",  # errno ENOMEM, in words
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",  # what cuBLAS says where its workspace does not fit
    "cudnn_status_alloc_failed",
    "allocation_failed",  # cuDNN 9: ..._HOST_ALLOCATION_FAILED, ..._DEVICE_ALLOCATION_FAILED
    "could not create a memory object",  # oneDNN
)

_LOST = (
    "unspecified launch failure",
    "device-side assert",
    "illegal memory access",
    "misaligned address",
    "illegal instruction was encountered",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "invalid access of peer gpu memory",
    "gpu requires reset",
    "no cuda-capable device is detected",
    "no cuda gpus are available",
    "the launch timed out",
    "gpu is lost",
    "uncorrectable ecc error",
    "hardware stack error",
    "cuda-capable devices are busy or unavailable",
    "cuda-capable device(s) is/are busy or unavailable",
    "nvlink error",
    "cuda error: unknown error",
    "cuda driver error: unknown error",
    "cudaerrorunknown",
    "unhandled cuda error",
    "driver shutting down",
    "context is destroyed",
    "cudnn_status_execution_failed",
    "cublas_status_execution_failed",
    "cudnn_status_internal_error",
    "cublas_status_internal_error",
)
"""What CUDA says when its context in this process is dead, in small letters."""

_lost_because: list[str] = []


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
        DeviceLostError: The GPU was lost to this process before.
    """
    import torch

    if _lost_because and name != "cpu":
        raise _explained(_lost_because[0])

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


def says_memory_is_short(text: str) -> bool:
    """Whether an error's text says that memory is short: of a GPU, or of the machine."""
    small = text.lower()
    return any(words in small for words in _SHORT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether an error says that nothing can be computed on the GPU in this process any more.

    The GPU is gone, or a kernel died on it: either way CUDA answers every later call of this
    process with an error, whatever it is. PyTorch raises torch.AcceleratorError from 2.11 on, and
    a RuntimeError before.
    """
    if isinstance(error, DeviceLostError):
        return True
    # NCCL calls it an unhandled CUDA error, too, where memory is short.
    if not isinstance(error, RuntimeError) or says_memory_is_short(str(error)):
        return False
    text = str(error).lower()
    names_cuda = any(word in text for word in ("cuda", "cublas", "cudnn", "nccl", "gpu is lost"))
    return names_cuda and any(words in text for words in _LOST)


def lost_device(error: BaseException) -> DeviceLostError:
    """Return the error to raise for one of which `is_device_lost` is true; it is remembered."""
    if isinstance(error, DeviceLostError):
        return error
    first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]
    _lost_because.append(first)
    return _explained(first)


def _explained(reason: str) -> DeviceLostError:
    return DeviceLostError(
        f"Expected the GPU to compute until the end; found that it is lost to this process: "
        f"{reason}. What was finished is kept, and nothing was written as failed. Run the same "
        "again, in a new process; where it comes back, look at nvidia-smi and the kernel's log "
        "(dmesg, lines with NVRM or Xid), or set runtime.device=cpu."
    )


def forget_lost_device() -> None:
    """Believe in the GPU again; for tests, as no process gets a lost one back."""
    _lost_because.clear()
