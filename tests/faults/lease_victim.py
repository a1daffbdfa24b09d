"""What the kill tests of device leases run: an asset that holds a device, and writes down when."""

import os
import time
from pathlib import Path

import dagster as dg

from resources.gpu import GpuResource

NUM_DEVICES = 3


@dg.asset
def computed(context: dg.AssetExecutionContext, gpu_pool: GpuResource) -> None:
    with gpu_pool.lease():
        device = os.environ["CUDA_VISIBLE_DEVICES"]
        log = Path(os.environ["LEASE_LOG"])
        write(log, f"{device} {os.getpid()} from {time.monotonic()}")
        # Long beside a run's other work: all devices are held at once on a slow machine, too.
        time.sleep(0.3)
        write(log, f"{device} {os.getpid()} to {time.monotonic()}")


def write(log: Path, line: str) -> None:
    """Append a line in one call, which no other process' can come between."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def materialise_again_and_again(folder: str, log: str) -> None:
    """Run the asset, a run each time, until somebody ends this process."""
    os.environ["LEASE_LOG"] = log
    pool = GpuResource(num_devices=NUM_DEVICES, lock_folder=folder)
    while True:
        result = dg.materialize([computed], resources={"gpu_pool": pool})
        assert result.success
