"""Kernel file locks: held by one process, freed by the kernel when it dies, however it dies.

Lock files are opened for reading and writing: NFS 4 makes `flock` a lock of bytes, and those, as
POSIX has them, want a file open for reading to share it and one open for writing to have it alone.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.storage_errors import writing_to


@contextmanager
def exclusive_lock(path: Path, purpose: str, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on `path` while the block runs.

    Args:
        path: Lock file; made if absent, never removed (removing it would break the exclusion).
        purpose: What the lock protects, for the message.
        wait: Whether to wait for another holder; without it a held lock raises.

    Raises:
        StageError: The lock is held elsewhere and `wait` is false.
        StorageError: The lock file cannot be made.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise StageError(
                f"Expected to be alone in {purpose}, but another process holds {path}. "
                "Wait for it to end, or stop it, and run this again."
            ) from error
        yield


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Hold a lock that any number of processes share, and that who wants it alone waits for.

    Args:
        path: Lock file; made if absent, never removed. `exclusive_lock` on it is for one alone.

    Raises:
        StorageError: The lock file cannot be made.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+")
    with stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        yield
