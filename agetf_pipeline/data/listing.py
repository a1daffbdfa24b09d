"""The files of a corpus folder: every one of them, by names that any table can hold."""

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from agetf_pipeline.core.errors import DataError


@dataclass(frozen=True)
class Found:
    """One input of a corpus folder.

    Attributes:
        path: Where it lies.
        relative: Its path inside the folder, with `/`; bytes that are not UTF-8 are surrogates.
        num_bytes: Its size; None where there is no regular file to measure.
        reason: Why it cannot be read at all, None for a regular file.
        detail: The same as a sentence.
    """

    path: Path
    relative: str
    num_bytes: int | None = None
    reason: str | None = None
    detail: str = ""


def escape_name(name: str) -> str:
    r"""Return a file name in printable ASCII: other bytes, and the backslash, as `\xNN`.

    Two different names never become one, so that the result serves as a key.
    """
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}"
        for byte in os.fsencode(name)
    )


def is_utf8(name: str) -> bool:
    """Whether a name read from the file system is valid UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_files(folder: Path, besides: Collection[str] = ()) -> bool:
    """Whether a folder, or one below it, holds a visible file other than `besides` at its top."""
    if not folder.is_dir():
        return False
    for current, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        top = Path(current) == folder
        if any(not name.startswith(".") and not (top and name in besides) for name in names):
            return True
    return False


def list_files(
    folder: Path, besides: Collection[str] = (), follow_links: bool = False
) -> list[Found]:
    """List every visible file in a folder and below it, sorted by relative path.

    Names with a leading dot are the file system's own business (`.DS_Store`, `._photo.jpg`) and are
    left out, as are the files named in `besides` at the top. Nothing else is left out silently: a
    link that leads out of the folder, a broken one, a pipe or a device is listed with a reason.

    Args:
        folder: The folder. It may itself be a link.
        besides: File names at its top that are not images (the labels, the manifest).
        follow_links: Whether links may lead out of the folder.

    Raises:
        DataError: A folder cannot be listed.
    """
    root = os.path.realpath(folder)
    found: list[Found] = []
    visited = {root}
    pending = [("", root)]
    while pending:
        prefix, current = pending.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(
                f"Expected to list {escape_name(current)}; found: {error.strerror}. "
                "Grant the right to read it, or take it out of the corpus."
            ) from error
        for entry in entries:
            relative = f"{prefix}{entry.name}"
            if entry.name.startswith(".") or relative in besides:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append((f"{relative}/", entry.path))
            elif entry.is_symlink():
                _add_link(entry, relative, root, follow_links, found, pending, visited)
            else:
                found.append(_entry(entry.path, relative))
    return sorted(found, key=lambda item: os.fsencode(item.relative))


def _entry(path: str, relative: str) -> Found:
    try:
        status = os.stat(path)  # noqa: PTH116 - a path with surrogates, as scandir gave it
    except OSError as error:
        detail = f"The file cannot be reached: {error.strerror}."
        return Found(Path(path), relative, reason="unreadable", detail=detail)
    if not stat.S_ISREG(status.st_mode):
        detail = "A pipe, socket or device, not a file."
        return Found(Path(path), relative, reason="not_a_file", detail=detail)
    return Found(Path(path), relative, num_bytes=status.st_size)


def _add_link(
    entry: os.DirEntry[str],
    relative: str,
    root: str,
    follow_links: bool,
    found: list[Found],
    pending: list[tuple[str, str]],
    visited: set[str],
) -> None:
    target = os.path.realpath(entry.path)
    inside = target == root or target.startswith(root + os.sep)
    path = Path(entry.path)
    if not os.path.exists(target):  # noqa: PTH110
        detail = "A link to something that is not there."
        found.append(Found(path, relative, reason="missing_file", detail=detail))
    elif not inside and not follow_links:
        detail = (
            "A link that leads out of the corpus folder. Copy what it points to into the folder, "
            "or set follow_links for this corpus."
        )
        found.append(Found(path, relative, reason="outside_folder", detail=detail))
    elif not entry.is_dir():
        found.append(_entry(entry.path, relative))
    elif inside or target in visited:
        detail = "A link to a folder that is read anyway."
        found.append(Found(path, relative, reason="linked_folder", detail=detail))
    else:
        visited.add(target)
        pending.append((f"{relative}/", entry.path))
