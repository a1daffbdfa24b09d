"""Kernel file locks: held by one process, freed by the kernel when it dies, however it dies.

Lock files are opened for reading and writing: NFS 4 makes `flock` a lock of bytes, and those, as
POSIX has them, want a file open for reading to share it and one open for writing to have it alone.
"""

import fcntl
import os
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


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock alone; nothing is made, and nobody is waited for.

    Who asks shares a free lock for an instant: `exclusive_lock` without `wait` may meet that.
    """
    try:
        with path.open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


class Claims:
    """Numbers, each of which one process at a time can have: locks of single bytes of one file.

    They are freed by the kernel with the process that has them. All that a process has are gone,
    too, when it closes the file, under whatever descriptor: open it once in a process.

    Args:
        path: An existing file. Its content does not matter, nor does its length.

    Raises:
        FileNotFoundError: There is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("r+b")

    def take(self, number: int) -> bool:
        """Have a number, unless another process has it: then return False at once."""
        try:
            fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number, os.SEEK_SET)
        except (BlockingIOError, PermissionError):  # POSIX allows EACCES for a held one
            return False
        return True

    def give_back(self, number: int) -> None:
        """Let others have a number."""
        fcntl.lockf(self._stream, fcntl.LOCK_UN, 1, number, os.SEEK_SET)

    def close(self) -> None:
        """Give everything back."""
        self._stream.close()
