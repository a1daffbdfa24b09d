"""A folder that is replaced whole: whoever looks, or kills the writer, finds the old or the new."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agetf_pipeline.core.files import atomic_folder

_AT_FDCWD, _EXCHANGE = -100, 2


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `path` when the block succeeds.

    On an exception the former folder stays as it was. Names beside `path` that begin with a dot are
    used on the way; what a killed process left there goes the next time.

    Args:
        path: Final folder; its name begins with no dot. Its parents are made.
    """
    staged, former = (path.with_name(f".{path.name}.{word}") for word in ("new", "old"))
    if former.exists() and not path.exists():
        former.rename(path)  # killed between the two renames below
    with atomic_folder(staged) as temporary:
        yield temporary
    if not path.exists():
        staged.rename(path)
    elif not _exchange(staged, path):
        shutil.rmtree(former, ignore_errors=True)
        path.rename(former)
        staged.rename(path)
    for leftover in (staged, former):
        shutil.rmtree(leftover, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; false where kernel or file system cannot.

    Source: renameat2(2), RENAME_EXCHANGE; Python has no call for it.
    """
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return swap(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _EXCHANGE) == 0
