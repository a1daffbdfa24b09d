"""Atomic files: a name appears with its whole content, or not at all.

A process that is killed leaves the temporary file of the write it was in. Whoever first writes in
that folder afterwards removes it: writers share a lock of the folder that the kernel frees with
them, and who gets it alone knows that nobody's write is under way. On a network file system a
folder's lock holds on one machine alone, so that what another machine left is removed by its age.
"""

import fcntl
import json
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agetf_pipeline.core.errors import DamagedFileError
from agetf_pipeline.core.hashing import hash_bytes
from agetf_pipeline.core.storage_errors import writing_to

_TMP_PREFIX = ".tmp-"
_MACHINE = f"m{hash_bytes(socket.gethostname().encode())[:8]}-"
_ANY_MACHINE = re.compile(rf"^{re.escape(_TMP_PREFIX)}(m[0-9a-f]{{8}}-)")
_ABANDONED_S = 2 * 24 * 3600.0
"""A temporary file of another machine is nobody's any more where its folder has changed so long
after it did: no write takes so long. Both times are the file server's."""
_asking_umask = threading.Lock()
_swept: set[tuple[int, int]] = set()
"""Folders (device, inode) that this process looked through for what a killed one left."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path on the same file system, moved onto `path` when the block succeeds.

    The content is flushed to disk before the rename and the folder after it, so that a power cut
    leaves the old file or the new one. On an exception the temporary file is removed.

    Args:
        path: Final file. Its parents are made.

    Yields:
        The path to write to, with the same suffix as `path` (libraries choose formats by it).

    Raises:
        StorageError: The disk is full or broken, or may not be written.
    """
    with writing_to(path), _writing_in(path.parent):
        descriptor, name = tempfile.mkstemp(
            prefix=_TMP_PREFIX + _MACHINE, suffix=path.suffix, dir=path.parent
        )
        os.close(descriptor)
        temporary = Path(name)
        try:
            with writing_to(path):  # asked while the half-written file still takes its room
                yield temporary
                with temporary.open("rb") as stream:
                    os.fsync(stream.fileno())
                # mkstemp makes files private; what a run writes is as readable as any new file.
                temporary.chmod(0o666 & ~_umask())
                temporary.replace(path)
                _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path` that takes its place when the block succeeds.

    Files in it are to be written with `atomic_path`, which brings them to the disk. A folder of
    that name is replaced; killed in between, there is none. On an exception, or where a kill left
    one (see `remove_temporary_folders`), the temporary folder goes.

    Args:
        path: Final folder. Its parents are made.

    Raises:
        StorageError: The disk is full or broken, or may not be written.
    """
    with writing_to(path), _writing_in(path.parent):
        temporary = Path(tempfile.mkdtemp(prefix=_TMP_PREFIX + _MACHINE, dir=path.parent))
        try:
            with writing_to(path):
                yield temporary
                temporary.chmod(0o777 & ~_umask())
                _sync_folder(temporary)
                if path.exists():
                    path.rename(temporary.with_name(f"{temporary.name}-old"))
                temporary.rename(path)
                _sync_folder(path.parent)
        finally:
            for leftover in (temporary, temporary.with_name(f"{temporary.name}-old")):
                shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _writing_in(folder: Path) -> Iterator[None]:
    """Share the folder's lock while the block runs; first remove what killed writers left there.

    Each process looks through a folder once. A file system without such locks keeps the leftovers.
    The folder is made where it is absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) not in _swept:
                with suppress(BlockingIOError):  # somebody is writing: another time
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _swept.add((status.st_dev, status.st_ino))
                    remove_temporary_folders(folder)
                    _remove_leftovers(folder)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def reserve(path: Path) -> None:
    """Take the room of a file that is written through memory, before it is.

    Its blocks would otherwise be asked for one by one, and a full disk answers such a write by
    killing the process (SIGBUS).

    Args:
        path: The file, of its final size.

    Raises:
        OSError: There is not enough room.
    """
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(1, path.stat().st_size))


def remove_temporary_folders(folder: Path) -> None:
    """Remove the folders that interrupted writes left in `folder`; under its lock alone."""
    for leftover in folder.glob(f"{_TMP_PREFIX}*"):
        if leftover.is_dir() and _is_nobodys(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically. NaN is refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DamagedFileError: It is no JSON, or no UTF-8.
        OSError: It is absent or cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedFileError(
            f"Expected JSON in {path}; found damage: {error}. "
            "Delete the file, and run the stage that makes it again."
        ) from error


def remove_temporary_files(folder: Path) -> int:
    """Remove what interrupted writes left in `folder` (not below it); return how many there were.

    Nothing is removed while somebody writes there.
    """
    if not folder.is_dir():
        return 0
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _remove_leftovers(folder)
    except OSError:  # a write is under way, or the file system has no such locks
        return 0
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: Path) -> int:
    """Remove temporary files; to be called under the folder's lock alone."""
    found = folder.glob(f"{_TMP_PREFIX}*")
    leftovers = [path for path in found if not path.is_dir() and _is_nobodys(path)]
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)


def _is_nobodys(path: Path) -> bool:
    """Whether no living process can be writing it, where the folder's lock is held alone."""
    machine = _ANY_MACHINE.match(path.name)
    if machine is None or machine[1] == _MACHINE:
        return True
    try:
        return path.parent.stat().st_mtime - path.stat().st_mtime > _ABANDONED_S
    except OSError:
        return False


def _umask() -> int:
    with _asking_umask:  # it is read by being set: two threads at once would leave the wrong one
        current = os.umask(0o022)
        os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
