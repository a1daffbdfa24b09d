"""The GPU pool's second half: a kernel lock per device.

Dagster's pool is a queue, not a lock: two processes can hold one slot for a moment. The lock of a
device is the truth. It lives in the kernel, not in a file's content or a database: it is gone with
the last process that holds it, after success, failure, `kill -9` or a restart of the machine, and
nothing has to be cleaned up. Processes that a step starts share it (see `core/leases.py`).
"""

import ctypes
import fcntl
import gc
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import dagster as dg

from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.core.leases import LEASE_VARIABLE

GPU_POOL = "gpu"
_LOCKS_VARIABLE = "AGETF_GPU_LOCKS"
_MASK = "CUDA_VISIBLE_DEVICES"
_DEPLOYED_MASK = os.environ.get(_MASK)
_CPU = "cpu"
_POLL_S = 0.2

_seen: list[str] = []
"""Devices that CUDA shows in this process: those of the mask under which it started, for good."""


class GpuResource(dg.ConfigurableResource):
    """Leases one device per step, across processes.

    Attributes:
        num_devices: Devices of this machine; 0 is one CPU slot, by the same path; None counts them.
        lock_folder: Where the locks lie, a local disk that every run on this machine sees. Empty:
            AGETF_GPU_LOCKS, else `gpu` in DAGSTER_HOME.
    """

    num_devices: int | None = None
    lock_folder: str = ""

    @contextmanager
    def lease(self, num_wanted: int = 1) -> Iterator[str]:
        """Wait for free devices and hold them while the block runs.

        CUDA_VISIBLE_DEVICES names the devices meanwhile. CUDA reads it once in a process: whoever
        has computed on a device waits for the same one at the next step of its run.

        Args:
            num_wanted: Devices, for one process each. A machine without GPUs has one CPU slot for
                all of them.

        Yields:
            `cuda:<index>` as this process counts what it sees, `cuda` for several devices, or `cpu`
            on a machine without GPUs.

        Raises:
            ConfigError: More devices are wanted than there are.
        """
        devices = self._devices()
        if 0 < len(devices) < num_wanted:
            raise ConfigError(
                f"Expected a GPU for each of {num_wanted} processes; found {len(devices)}. "
                "Lower train.num_processes."
            )
        if devices and not _seen and _cuda_has_started():
            _seen.extend(devices)
        eligible = [d for d in devices if d in _seen] if num_wanted == 1 and _seen else []
        folder = self._folder()
        folder.mkdir(parents=True, exist_ok=True)
        held = _acquire(folder, eligible or devices or [_CPU], num_wanted if devices else 1)
        variables = {LEASE_VARIABLE: os.pathsep.join(stream.name for stream in held.values())}
        if devices:
            variables[_MASK] = ",".join(held)
        try:
            with _environment(variables):
                yield _name(list(held)) if devices else _CPU
        finally:
            if devices and not _seen and _cuda_has_started():
                _seen.extend(held)
            _return_memory()
            for stream in held.values():
                stream.close()

    def _devices(self) -> list[str]:
        if self.num_devices is not None:
            return [str(index) for index in range(self.num_devices)]
        return list_devices()

    def _folder(self) -> Path:
        home = Path(os.environ.get("DAGSTER_HOME", "."))
        folder = Path(os.environ.get(_LOCKS_VARIABLE) or home / "gpu").resolve()
        if not self.lock_folder:
            return folder
        # Run configuration can come from a browser: it makes no files just anywhere.
        named = Path(self.lock_folder).resolve()
        roots = (folder, home.resolve(), Path(tempfile.gettempdir()).resolve())
        if not any(named.is_relative_to(root) for root in roots):
            raise ConfigError(
                f"Expected lock_folder below DAGSTER_HOME or {roots[-1]}; found {named}. "
                f"Set {_LOCKS_VARIABLE} for the deployment to use a folder elsewhere."
            )
        return named


def list_devices() -> list[str]:
    """Return the NVIDIA devices of this machine, without loading a driver library.

    Those that CUDA_VISIBLE_DEVICES named when the process started, else as many as there are.
    """
    num_there = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if _DEPLOYED_MASK is None:
        return [str(index) for index in range(num_there)]
    named = [name.strip() for name in _DEPLOYED_MASK.split(",")]
    return [name for name in named if name and name != "-1"] if num_there else []


def count_devices() -> int:
    """Return how many devices a run on this machine may lease."""
    return len(list_devices())


def _name(held: list[str]) -> str:
    if len(held) > 1:
        return "cuda"
    return f"cuda:{_seen.index(held[0])}" if held[0] in _seen else "cuda:0"


def _acquire(folder: Path, devices: list[str], num_wanted: int) -> dict[str, TextIO]:
    """Hold the locks of so many devices: all at once, or none while waiting for the rest.

    A free device is one whose lock can be had alone. It is then held as a shared one, which the
    processes of the step can join; between the two, `acquire.lock` keeps everybody else away.
    """
    while True:
        held: dict[str, TextIO] = {}
        with (folder / "acquire.lock").open("a+") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            for device in devices:
                stream = _try(folder / f"gpu{re.sub(r'[^A-Za-z0-9-]', '_', device)}.lock")
                if stream is not None:
                    held[device] = stream
                if len(held) == num_wanted:
                    return held
            for stream in held.values():
                stream.close()
        time.sleep(_POLL_S)


def _try(path: Path) -> TextIO | None:
    stream = path.open("a+")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _cuda_has_started() -> bool:
    """Whether the CUDA driver of this process has read its mask; does not start it."""
    try:
        driver = ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOW | os.RTLD_NOLOAD)
    except OSError:
        return False
    return driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) == 0


def _return_memory() -> None:
    """Give cached memory back before the next lessee comes; the process goes on without it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        # On a device that was lost, every call fails; its lock must be given back all the same.
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
