"""Content hashes and fingerprints: the identity of a file, and of a piece of work."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20


def hash_bytes(data: bytes) -> str:
    """Return the sha256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def hash_files(paths: Iterable[Path], root: Path) -> str:
    """Return one sha256 over the names (relative to `root`) and contents of several files.

    The order of `paths` does not matter.
    """
    lines = sorted(f"{path.relative_to(root).as_posix()}={hash_file(path)}" for path in paths)
    return hash_bytes("\n".join(lines).encode())


def hash_folder(folder: Path) -> str:
    """Return one sha256 over everything in a folder and below it but hidden names."""
    return hash_files((path for path in folder.rglob("[!.]*") if path.is_file()), folder)


def canonical_json(value: Any) -> str:
    """Return JSON text that is equal for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)


def fingerprint(settings: Mapping[str, Any], code_version: str, inputs: Mapping[str, str]) -> str:
    """Return the identity of a piece of work: same fingerprint, same result.

    The command line's skip and Dagster's data versions both come from this function.

    Args:
        settings: The part of the configuration that the work depends on, JSON-compatible.
        code_version: Version of the code that does it, raised by hand when its results change.
        inputs: Name to content hash of everything that it reads.

    Returns:
        64 hexadecimal digits.
    """
    payload = {"settings": settings, "code_version": code_version, "inputs": dict(inputs)}
    return hash_bytes(canonical_json(payload).encode())


def read_checksums(path: Path) -> dict[str, str]:
    """Return name to sha256 of a list of checksums, as `sha256sum -c` reads it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
