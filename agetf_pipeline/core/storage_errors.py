"""A disk that is full, read-only, forbidden or broken: one message for all who write.

Every library says it in its own way, some in plain text alone. Here it becomes a `StorageError`
that names the folder, what room there is, and what to do.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agetf_pipeline.core.errors import AgetfError, StorageError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_BROKEN = frozenset({errno.EIO, errno.ENXIO, errno.EREMOTEIO})
_SPELLINGS = {
    # What libraries without an errno of their own say: Rust, SQLite, PostgreSQL, Pillow. Nothing
    # that databases, object stores and SSH say of their own rights.
    "no space left on device": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "could not extend file": errno.ENOSPC,
    "disk quota exceeded": errno.EDQUOT,
    "read-only file system": errno.EROFS,
    "attempt to write a readonly database": errno.EROFS,
    "unable to open database file": errno.EACCES,
    "permission denied (os error 13)": errno.EACCES,
    "input/output error": errno.EIO,
    "disk i/o error": errno.EIO,
}
_CUT_SHORT = ("file write failed", "requested and", "unexpected pos", "encoder error")
"""What PyTorch, NumPy and Pillow say of a write that did not get through, whatever the reason."""
_SPEAKING_OF_FILES = frozenset(
    {"sqlite3", "sqlalchemy", "mlflow", "alembic", "pyarrow", "polars", "PIL", "safetensors"}
)
"""Packages whose errors repeat one of the system's: what they were raised after is their cause."""
_LITTLE_BYTES = 1 << 20
_AGAIN = "and run the same again: what was finished is kept."
_MAX_CAUSES = 8


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn what the disk says inside the block into a `StorageError` about `path`.

    Other errors, and those about files that lie elsewhere, pass unchanged.

    Args:
        path: The file, or folder, that the block writes.

    Raises:
        StorageError: The disk of `path` is full or broken, or nothing may be written there.
    """
    try:
        yield
    except AgetfError:
        raise
    except Exception as error:
        number = _errno_of(error, path)
        if number is None or _is_about_another(error, path):
            raise
        raise describe(path, number) from error


def storage_error(error: BaseException, path: Path) -> AgetfError | None:
    """Return what an error says of the disk, as a `StorageError`; None where it says nothing.

    Args:
        error: Whatever reached the top, from any library.
        path: What to speak of where the error names no file: the workspace, say.
    """
    number = _errno_of(error, path, named_alone=True)
    if number is None:
        return None
    named = _file_of(error)
    return describe(path if named is None else Path(os.path.abspath(named)), number)  # noqa: PTH100


def describe(path: Path, number: int) -> StorageError:
    """Return the error for a place and what the system said of it (an `errno`)."""
    folder = _existing_folder(path)
    said = os.strerror(number)
    if number in _FULL:
        return StorageError(
            f"Expected room to write {path}; found: {said} ({room_in(folder)}). Make room there, "
            f"or put workspace.root on a larger disk, {_AGAIN}"
        )
    if number in _FORBIDDEN:
        wanted = "write" if number == errno.EROFS else "read or write"
        return StorageError(
            f"Expected to be allowed to {wanted} {path}; found: {said} (folder "
            f"{folder}, as user {os.geteuid()}). Mount it writable or grant that user the right, "
            f"or set workspace.root to a folder that may be written, {_AGAIN}"
        )
    return StorageError(
        f"Expected the disk to take {path}; found: {said} (folder {folder}). See what the system's "
        f"log says of the disk (dmesg) and whether its network is there, {_AGAIN}"
    )


def room_in(folder: Path) -> str:
    """Return how much may still be written in a folder, for people."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return f"folder {folder}"
    free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    text = f"{spell_bytes(free)} of {spell_bytes(total)} free in {folder}"
    return f"{text}, no file more fits" if status.f_files and not status.f_favail else text


def spell_bytes(count: float) -> str:
    """Return a number of bytes as people write it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it.

    What merely was being handled when it was raised is no cause of a bug in the handler.
    """
    seen: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if seen is None:
            return
        yield seen
        handled = None if seen.__suppress_context__ or not _repeats(seen) else seen.__context__
        seen = seen.__cause__ or handled


def _repeats(error: BaseException) -> bool:
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or package in _SPEAKING_OF_FILES


def _errno_of(error: BaseException, path: Path, named_alone: bool = False) -> int | None:
    """Return what the system said, from an error or from what caused it.

    Args:
        error: The error.
        path: What is written, for errors that do not say why it did not get through.
        named_alone: Whether a refusal has to name its file. Ports, processes and devices are
            refused in the same words.
    """
    for seen in _chain(error):
        if isinstance(seen, OSError) and seen.errno in _FULL | _FORBIDDEN | _BROKEN:
            refused = seen.errno in (errno.EACCES, errno.EPERM)
            return None if refused and named_alone and seen.filename is None else seen.errno
        if not isinstance(seen, OSError) or seen.errno is None:
            text = str(seen)[:10_000].lower()
            for spelling, number in _SPELLINGS.items():
                if spelling in text:
                    return number
            if any(words in text for words in _CUT_SHORT) and _is_nearly_full(path):
                return errno.ENOSPC
    return None


def _is_about_another(error: BaseException, path: Path) -> bool:
    """Whether the error names a file outside the folder that is written to: a source, say."""
    named = _file_of(error)
    return named is not None and not Path(os.path.abspath(named)).is_relative_to(  # noqa: PTH100
        os.path.abspath(path.parent)  # noqa: PTH100 - links keep their names
    )


def _file_of(error: BaseException) -> str | None:
    for seen in _chain(error):
        if isinstance(seen, OSError) and isinstance(seen.filename, str | bytes):
            return os.fsdecode(seen.filename)
    return None


def _is_nearly_full(path: Path) -> bool:
    try:
        status = os.statvfs(_existing_folder(path))
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < _LITTLE_BYTES


def _existing_folder(path: Path) -> Path:
    folder = path if path.is_dir() else path.parent
    while not os.path.isdir(folder) and folder != folder.parent:  # noqa: PTH112
        folder = folder.parent
    return folder
