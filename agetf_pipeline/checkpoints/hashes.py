"""Hashes of big files, computed once while a file stays as it is."""

import hashlib
import logging
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from agetf_pipeline.core.errors import StorageError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.workspace import Workspace

_LOGGER = logging.getLogger(__name__)
BIG_BYTES = 64 * 1024 * 1024
"""Larger files are hashed once per workspace, smaller ones once per process."""
_CHUNK_BYTES = 8 * 1024 * 1024
_MB = 1_000_000

Stamp = tuple[int, int, int]
HashOf = Callable[[Path, Workspace], str | None]
"""How a file is hashed: anew, from the cache, or only if that is quick (None otherwise)."""


def known_hash(path: Path, workspace: Workspace) -> str | None:
    """Return a file's sha256 if that is quick: a small file, or one that was hashed before."""
    stamp = _stamp(path)
    if stamp[0] <= BIG_BYTES:
        return _hash_unchanged(path, stamp)
    return _remembered(path, stamp, workspace)


def cached_hash(path: Path, workspace: Workspace) -> str:
    """Return a file's sha256, computed anew only if its size or a time stamp changed."""
    return known_hash(path, workspace) or fresh_hash(path, workspace)


def fresh_hash(path: Path, workspace: Workspace) -> str:
    """Return a file's sha256, computed now, and remember it for `cached_hash`."""
    digest = hash_now(path)
    remember(path, digest, workspace)
    return digest


def hash_now(path: Path) -> str:
    """Return a file's sha256, computed now; with progress, where it takes a while."""
    size_bytes = path.stat().st_size
    return hash_file(path) if size_bytes <= BIG_BYTES else _hash_with_progress(path, size_bytes)


def remember(path: Path, digest: str, workspace: Workspace) -> None:
    """Keep the sha256 of a big file, for as long as the file stays as it is now."""
    stamp = _stamp(path)
    if stamp[0] <= BIG_BYTES:
        return
    memory = {
        file: entry for file, entry in _read_memory(workspace).items() if Path(file).is_file()
    }
    memory[os.path.realpath(path)] = {"stamp": list(stamp), "sha256": digest}
    try:
        write_json(_memory(workspace), memory)
    except (OSError, StorageError) as error:  # read-only, full: the next load hashes again
        _LOGGER.debug("checksum of %s not remembered: %s", path, error)


def _stamp(path: Path) -> Stamp:
    # The change time too: a copy can carry the times of what it replaces, but not this one.
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=512)
def _hash_unchanged(path: Path, _stamp: Stamp) -> str:
    return hash_file(path)


def _hash_with_progress(path: Path, size_bytes: int) -> str:
    digest = hashlib.sha256()
    done = shown = 0
    with (
        path.open("rb") as stream,
        Progress(f"checksum of {path.name} (MB)", size_bytes // _MB) as progress,
    ):
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress.advance(done // _MB - shown)
            shown = done // _MB
    return digest.hexdigest()


def _memory(workspace: Workspace) -> Path:
    return workspace.state / "checkpoints" / "hashes.json"


def _remembered(path: Path, stamp: Stamp, workspace: Workspace) -> str | None:
    entry = _read_memory(workspace).get(os.path.realpath(path))
    if isinstance(entry, dict) and entry.get("stamp") == list(stamp):
        return str(entry.get("sha256"))
    return None


def _read_memory(workspace: Workspace) -> dict[str, object]:
    try:
        memory = read_json(_memory(workspace))
    except (OSError, ValueError):
        return {}
    return memory if isinstance(memory, dict) else {}
