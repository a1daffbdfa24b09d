"""The files of a corpus folder: every one of them, by names that any table can hold."""

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from agetf_pipeline.core.errors import DataError

_OUTSIDE = (
    "A link that leads out of the corpus folder. Copy what it points to into the folder, "
    "or set follow_links for this corpus."
)


Scanned = tuple[str, int | None, str | None, str]
"""A file's path inside the folder, its size, and why it cannot be read, as `Found` has them."""


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
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
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
    pending = [str(folder)]
    while pending:
        current = pending.pop()
        top = current == str(folder)
        try:
            # Not read to its end: a folder of a million files answers with its first.
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if not _is_folder(entry):
                        if not (top and entry.name in besides):
                            return True
                    elif not entry.is_symlink():
                        pending.append(entry.path)
        except OSError:
            continue
    return False


def list_files(
    folder: Path, besides: Collection[str] = (), follow_links: bool = False
) -> list[Found]:
    """List every visible file in a folder and below it, sorted by relative path.

    Args and errors: as `walk_files`.
    """
    found = walk_files(folder, besides, follow_links)
    return sorted(found, key=lambda item: os.fsencode(item.relative))


def walk_files(
    folder: Path, besides: Collection[str] = (), follow_links: bool = False
) -> Iterator[Found]:
    """Yield every visible file in a folder and below it, in no order that means anything.

    Names with a leading dot are the file system's own business (`.DS_Store`, `._photo.jpg`) and are
    left out, as are the files named in `besides` at the top. Nothing else is left out silently: a
    link that leads out of the folder, a broken one, a pipe or a device is listed with a reason.
    Folders alone are held in memory, never the files of one.

    Args and errors: as `scan_files`.
    """
    root = os.path.realpath(folder)
    for relative, num_bytes, reason, detail in scan_files(folder, besides, follow_links):
        yield Found(Path(f"{root}/{relative}"), relative, num_bytes, reason, detail)


def scan_files(
    folder: Path, besides: Collection[str] = (), follow_links: bool = False
) -> Iterator[Scanned]:
    """Yield the same as tuples: what `Found` has, but for the path.

    Args:
        folder: The folder. It may itself be a link.
        besides: File names at its top that are not images (the labels, the manifest).
        follow_links: Whether links may lead out of the folder.

    Raises:
        DataError: A folder cannot be listed.
    """
    root = os.path.realpath(folder)
    visited = {root}
    pending = [("", root)]
    while pending:
        prefix, current = pending.pop()
        folders: list[tuple[str, bool]] = []
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    relative = f"{prefix}{entry.name}"
                    if entry.name.startswith(".") or relative in besides:
                        continue
                    is_link = entry.is_symlink()
                    if _is_folder(entry):
                        folders.append((entry.name, is_link))
                    elif is_link:
                        yield _link_to_file(entry.path, relative, root, follow_links)
                    else:
                        yield _entry(entry.path, relative)
        except OSError as error:
            raise DataError(
                f"Expected to list {escape_name(current)}; found: {error.strerror}. "
                "Grant the right to read it, or take it out of the corpus."
            ) from error
        # By name: of two links to one folder the same one is followed every time.
        for name, is_link in sorted(folders):
            relative, path = f"{prefix}{name}", f"{current}/{name}"
            refused = None
            if is_link:
                refused = _link_to_folder(path, relative, root, follow_links, visited)
            if refused is None:
                pending.append((f"{relative}/", path))
            else:
                yield refused


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder, or a link to one; not what cannot be told."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # noqa: PTH112


def _entry(path: str, relative: str) -> Scanned:
    try:
        status = os.stat(path)  # noqa: PTH116 - a path with surrogates, as scandir gave it
    except OSError as error:
        return relative, None, "unreadable", f"The file cannot be reached: {error.strerror}."
    if not stat.S_ISREG(status.st_mode):
        return relative, None, "not_a_file", "A pipe, socket or device, not a file."
    return relative, status.st_size, None, ""


def _link_to_file(path: str, relative: str, root: str, follow_links: bool) -> Scanned:
    target = os.path.realpath(path)
    if not os.path.exists(target):  # noqa: PTH110
        return relative, None, "missing_file", "A link to something that is not there."
    if not (_is_inside(target, root) or follow_links):
        return relative, None, "outside_folder", _OUTSIDE
    return _entry(path, relative)


def _link_to_folder(
    path: str, relative: str, root: str, follow_links: bool, visited: set[str]
) -> Scanned | None:
    """Return why a link to a folder is not followed; None where it is, which is noted."""
    target = os.path.realpath(path)
    inside = _is_inside(target, root)
    if not inside and not follow_links:
        return relative, None, "outside_folder", _OUTSIDE
    if inside or target in visited:
        return relative, None, "linked_folder", "A link to a folder that is read anyway."
    visited.add(target)
    return None


def _is_inside(target: str, root: str) -> bool:
    return target == root or target.startswith(root + os.sep)
