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
    def lease(self) -> Iterator[str]:
        """Wait for a free device and hold it while the block runs.

        Yields:
            `cuda:<index>`, or `cpu` on a machine without GPUs. CUDA_VISIBLE_DEVICES names the
            device for child processes meanwhile.
        """
        folder = Path(self.lock_folder or Path(os.environ.get("DAGSTER_HOME", ".")) / "gpu")
        folder.mkdir(parents=True, exist_ok=True)
        num_devices = count_devices() if self.num_devices is None else self.num_devices
        stream, index = _acquire(folder, num_devices)
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        try:
            if num_devices:
                os.environ["CUDA_VISIBLE_DEVICES"] = str(index)
            yield f"cuda:{index}" if num_devices else "cpu"
        finally:
            if before is None:
                os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before
            stream.close()


def count_devices() -> int:
    """Return how many NVIDIA devices this machine shows, without loading a driver library."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _acquire(folder: Path, num_devices: int) -> tuple[TextIO, int]:
    while True:
        for index in range(max(1, num_devices)):
            stream = (folder / f"gpu{index}.lock").open("a")
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.close()
            else:
                return stream, index
        time.sleep(_POLL_S)
