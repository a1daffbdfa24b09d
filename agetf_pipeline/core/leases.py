"""Devices that somebody leased: every process that computes on one holds a lock of it, too.

The kernel frees a lock when the last process that holds it is dead, however it died. Who leases a
device names the lock files in the environment; the processes that it starts share those locks from
before they touch the device until they are gone. So a device whose lessee was killed stays held as
long as an orphan of it still computes there.
"""

import fcntl
import os
from pathlib import Path
from typing import TextIO

from agetf_pipeline.core.errors import StageError

LEASE_VARIABLE = "AGETF_LEASED_DEVICES"
"""Environment variable: the lock files of the leased devices, separated like a PATH."""

_joined: dict[str, TextIO] = {}


def join_leases() -> None:
    """Share the locks of the devices that the process which started this one has leased.

    The caller has to see afterwards that the lessee is still alive: only then nobody else can have
    got the device in between.

    Raises:
        StageError: Somebody else is about to get the device: its lessee is dead.
    """
    for name in filter(None, os.environ.get(LEASE_VARIABLE, "").split(os.pathsep)):
        if name in _joined:
            continue
        stream = Path(name).open("a+")  # noqa: SIM115 - held until this process ends
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.close()
            raise StageError(
                f"Expected the device of {name} to be leased by the process that started this one; "
                "found that it is gone. Start the step again."
            ) from error
        _joined[name] = stream
