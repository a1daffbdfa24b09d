"""The GPU pool's second half: a kernel lock per device.

Dagster's pool is a queue, not a lock: two processes can hold one slot for a moment. The lock of a
device is the truth; the kernel frees it when its holder dies, however it dies.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import dagster as dg

from agetf_pipeline.core.errors import ConfigError

GPU_POOL = "gpu"
_POLL_S = 0.2


class GpuResource(dg.ConfigurableResource):
    """Leases one device per step, across processes.

    Attributes:
        num_devices: Devices of this machine; 0 is one CPU slot, by the same path; None counts them.
        lock_folder: Where the locks lie; on a local disk, the same for every run on this machine.
    """

    num_devices: int | None = None
    lock_folder: str = ""

    @contextmanager
    def lease(self, num_wanted: int = 1) -> Iterator[str]:
        """Wait for free devices and hold them while the block runs.

        Args:
            num_wanted: Devices, for one process each. A machine without GPUs has one CPU slot for
                all of them.

        Yields:
            `cuda:<index>`, `cuda` for several, or `cpu` on a machine without GPUs.
            CUDA_VISIBLE_DEVICES names the devices for child processes meanwhile.

        Raises:
            ConfigError: More devices are wanted than there are.
        """
        folder = Path(self.lock_folder or Path(os.environ.get("DAGSTER_HOME", ".")) / "gpu")
        folder.mkdir(parents=True, exist_ok=True)
        num_devices = count_devices() if self.num_devices is None else self.num_devices
        if 0 < num_devices < num_wanted:
            raise ConfigError(
                f"Expected a GPU for each of {num_wanted} processes; found {num_devices}. "
                "Lower train.num_processes."
            )
        held = _acquire(folder, max(1, num_devices), num_wanted if num_devices else 1)
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        try:
            if num_devices:
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in held)
            single = f"cuda:{next(iter(held))}" if num_wanted == 1 else "cuda"
            yield single if num_devices else "cpu"
        finally:
            if before is None:
                os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before
            for stream in held.values():
                stream.close()


def count_devices() -> int:
    """Return how many NVIDIA devices this machine shows, without loading a driver library."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _acquire(folder: Path, num_devices: int, num_wanted: int) -> dict[int, TextIO]:
    """Hold the locks of so many devices: all at once, or none while waiting for the rest."""
    while True:
        held: dict[int, TextIO] = {}
        for index in range(num_devices):
            stream = (folder / f"gpu{index}.lock").open("a")
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.close()
            else:
                held[index] = stream
            if len(held) == num_wanted:
                return held
        for stream in held.values():
            stream.close()
        time.sleep(_POLL_S)
