"""GPUs: whether PyTorch sees what the machine has, and bfloat16 where it was asked for."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from agetf_pipeline.core.storage_errors import spell_bytes
from agetf_pipeline.upkeep.doctor import Item, Patient, ill
from agetf_pipeline.upkeep.doctor_installation import torch_build

_DRIVER = Path("/proc/driver/nvidia/version")


def gpus_check(
    patient: Patient, devices: Path = Path("/dev"), driver: Path = _DRIVER
) -> Iterator[Item]:
    """Whether the devices that are there can be computed on."""
    there = sorted(path.name for path in devices.glob("nvidia[0-9]*"))
    wanted = "auto" if patient.config is None else patient.config.runtime.device
    build = torch_build()
    if not there:
        yield from _without(wanted)
        return
    found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", _text(driver))
    version = found.group(1) if found else "unknown"
    if wanted == "cpu":
        yield Item("GPUs", f"{len(there)}, not used: runtime.device is cpu")
        return
    if build is not None and not build[1]:
        yield ill(
            "warning", "devices/build", "GPUs", "a PyTorch built with CUDA",
            f"{len(there)} GPUs, and PyTorch {build[0]} for CPUs alone",
            "Install PyTorch's CUDA build: `make setup` does.",
        )  # fmt: skip
        return
    if patient.quick:
        yield Item("GPUs", f"{len(there)}, driver {version}; PyTorch not asked (--quick)")
        return
    yield from _asked(there, version, "" if build is None else build[1])


def bf16_check(patient: Patient, cpuinfo: Path = Path("/proc/cpuinfo")) -> Iterator[Item]:
    """Whether the device computes in bfloat16 itself, where the config wants it."""
    if patient.config is None or patient.config.runtime.precision != "bf16":
        return
    if _on_gpu(patient):
        if patient.quick:
            return
        import torch

        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(False)
    else:
        native = re.search(r"^flags\b.*\bavx512_bf16\b", _text(cpuinfo), re.MULTILINE) is not None
    if native:
        yield Item("bfloat16", "the device computes in it")
    else:
        yield ill(
            "warning", "devices/bf16", "bfloat16", "a device that computes in it",
            "one that emulates it", "Set runtime.precision=fp32: emulated, bf16 is slower.",
        )  # fmt: skip


def _without(wanted: str) -> Iterator[Item]:
    if wanted.startswith("cuda"):
        yield ill(
            "error", "devices/absent", "GPUs", f"one, for runtime.device={wanted}", "none",
            "Set runtime.device=auto, or check nvidia-smi and the container's --gpus.",
        )  # fmt: skip
    else:
        yield Item("GPUs", "none: everything runs on the CPU")


def _asked(there: list[str], driver: str, cuda: str) -> Iterator[Item]:
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if not usable:
        reason = str(said[0].message).strip().splitlines()[0] if said else "it does not say why"
        yield ill(
            "error", "devices/driver", "GPUs", f"{len(there)} that PyTorch can use",
            f"none: {reason} (driver {driver}, PyTorch for CUDA {cuda or 'none'})",
            "Install a driver for that CUDA or later, or a PyTorch for an older CUDA; in a "
            "container, start it with --gpus all. To work without: runtime.device=cpu.",
        )  # fmt: skip
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        major, minor = torch.cuda.get_device_capability(index)
        name = torch.cuda.get_device_name(index)
        text = f"{name}, {spell_bytes(free)} of {spell_bytes(total)} free, sm_{major}{minor}"
        if free < total / 4:
            yield ill(
                "warning", "devices/memory", f"cuda:{index}", "most of its memory free", text,
                "See with nvidia-smi who uses it, and wait or end that.",
            )  # fmt: skip
        else:
            yield Item(f"cuda:{index}", f"{text}, driver {driver}")


def _on_gpu(patient: Patient) -> bool:
    assert patient.config is not None
    wanted = patient.config.runtime.device
    return wanted.startswith("cuda") or (wanted == "auto" and Path("/dev/nvidia0").exists())


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


CHECKS = (gpus_check, bf16_check)
