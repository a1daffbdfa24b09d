"""Cores, memory, limits of the container, and open files."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from agetf_pipeline.core.storage_errors import spell_bytes
from agetf_pipeline.upkeep.doctor import Item, Patient, ill

GIB = 1 << 30
_CGROUP = Path("/sys/fs/cgroup")
_MIN_FILES = 1024
_LITTLE_MEMORY = 2 * GIB


def cores_check(patient: Patient, cgroup: Path = _CGROUP) -> Iterator[Item]:
    """Cores that may be used, and threads that were asked for."""
    usable = len(os.sched_getaffinity(0))
    quota = cpu_quota(cgroup)
    text = f"{usable} of {os.cpu_count()}"
    if quota is not None and quota < usable:
        text += f", {quota:g} by the container's limit"
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdigit() else None
    if patient.config is not None and patient.config.runtime.num_threads is not None:
        threads = patient.config.runtime.num_threads
    limit = usable if quota is None else min(usable, max(1, round(quota)))
    wanted = threads if threads is not None else usable
    if wanted > limit:
        yield ill(
            "warning", "machine/threads", "threads", f"at most {limit}, the cores there are",
            f"{wanted}", f"Set OMP_NUM_THREADS={limit} or runtime.num_threads={limit}: threads "
            "that wait for a core slow the others down.",
        )  # fmt: skip
    yield Item("cores", text)


def memory_check(
    patient: Patient, cgroup: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")
) -> Iterator[Item]:
    """Memory that is free, by the machine and by the container."""
    values = {
        line.partition(":")[0]: int(line.split()[1]) * 1024
        for line in meminfo.read_text().splitlines()
        if len(line.split()) > 1
    }
    total, free = values["MemTotal"], values.get("MemAvailable", values["MemFree"])
    text = f"{spell_bytes(free)} of {spell_bytes(total)} free"
    limit = memory_limit(cgroup)
    if limit is not None and limit[0] < total:
        free = min(free, limit[0] - limit[1])
        text += f"; {spell_bytes(max(0, limit[0] - limit[1]))} of {spell_bytes(limit[0])} in here"
    if free < _LITTLE_MEMORY:
        yield ill(
            "warning", "machine/memory", "memory", f"{spell_bytes(_LITTLE_MEMORY)} free or more",
            text, "Close other programs or raise the container's limit; smaller batches and fewer "
            "ingest.num_workers need less.",
        )  # fmt: skip
    else:
        yield Item("memory", text)


def files_check(patient: Patient) -> Iterator[Item]:
    """How many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _MIN_FILES:
        yield ill(
            "warning", "machine/open_files", "open files", f"a limit of {_MIN_FILES} or more",
            str(soft), f"Run `ulimit -n {max(_MIN_FILES, min(hard, 65536))}` before, or raise it "
            "in limits.conf.",
        )  # fmt: skip
    else:
        yield Item("open files", f"up to {soft}")


def cpu_quota(cgroup: Path = _CGROUP) -> float | None:
    """Return the cores that the container may use, None where it has no limit."""
    try:  # version 2
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:  # version 1
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def memory_limit(cgroup: Path = _CGROUP) -> tuple[int, int] | None:
    """Return the container's limit of memory and what it uses, bytes; None without a limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            text = (cgroup / limit).read_text().strip()
            return None if text == "max" else (int(text), int((cgroup / used).read_text()))
        except (OSError, ValueError):
            continue
    return None


CHECKS = (cores_check, memory_check, files_check)
