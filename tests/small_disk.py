"""Real disks that tests fill, or mount read-only: tmpfs of a few megabytes.

They need the right to mount, which root in a plain container may lack.
"""

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BLOCK = 4096


def _mount(*arguments: str | Path) -> subprocess.CompletedProcess:
    command = [shutil.which("mount") or "mount", *map(str, arguments)]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", "there is no mount here")


def _refusal() -> str:
    """Say why nothing can be mounted; empty where it can."""
    with tempfile.TemporaryDirectory() as folder:
        done = _mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
        if done.returncode == 0:
            _unmount(Path(folder))
            return ""
        return done.stderr.strip() or f"exit code {done.returncode}"


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=True)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a disk of this size on `folder` while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    done = _mount("-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder)
    assert done.returncode == 0, done.stderr
    try:
        yield folder
    finally:
        _unmount(folder)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount a folder over itself, read-only, while the block runs."""
    assert _mount("--bind", folder, folder).returncode == 0
    try:
        done = _mount("-o", "remount,ro,bind", folder)
        assert done.returncode == 0, done.stderr
        yield
    finally:
        _unmount(folder)


def fill(folder: Path, leave_bytes: int = 0) -> Path:
    """Fill the disk of a folder but for `leave_bytes`; return the file to delete to make room."""
    filler = folder / "filler.bin"
    with filler.open("wb", buffering=0) as stream:
        while True:
            try:
                stream.write(b"\0" * _BLOCK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break
    os.truncate(filler, max(0, filler.stat().st_size // _BLOCK * _BLOCK - leave_bytes))
    return filler


NEEDS_MOUNT = pytest.mark.skipif(
    bool(refused := _refusal()), reason=f"a real full disk needs the right to mount: {refused}"
)
