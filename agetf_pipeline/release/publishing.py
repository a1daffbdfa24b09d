"""Copy a release into shared storage: whole, verified, and never over another one by accident.

The checksums come last, so that whoever finds them finds everything that they list.
"""

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agetf_pipeline.core.errors import DataError, StageError, UnavailableError
from agetf_pipeline.core.hashing import hash_file, read_checksums
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.data.storage import Store, StoredFile, open_store, unsafe_name
from agetf_pipeline.release import CHECKSUMS

T = TypeVar("T")

_NUM_THREADS = 4
_NUM_NAMED = 3
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class PushReport:
    """What an upload did: counts, and the files at the address that are no part of the release."""

    uri: str
    num_uploaded: int
    num_kept: int
    num_bytes: int
    extra: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the report as sentences, the first with the counts."""
        lines = [
            f"{self.uri}: {self.num_uploaded} files uploaded ({self.num_bytes / 1e6:,.1f} MB), "
            f"{self.num_kept} there already"
        ]
        if self.extra:
            named = ", ".join(self.extra[:_NUM_NAMED])
            lines.append(f"Also there, and no part of this release: {len(self.extra)} ({named}).")
        return lines


def push(folder: Path, uri: str, overwrite: bool = False) -> PushReport:
    """Upload a release folder; what is there with the same content is left alone.

    Args:
        folder: The release, with its checksums.
        uri: The folder to fill, for this version alone.
        overwrite: Whether files with other content may be replaced. Files that only the other
            release has stay, and are named.

    Raises:
        ConfigError: The URI cannot be used, see `open_store`.
        DataError: The release is not what its checksums say.
        StageError: Another content is published at the address.
        UnavailableError: Reading or writing there failed; run it again.
    """
    digests = _verified(folder)
    store = open_store(uri)
    there = store.list_files(missing_ok=True).files
    present = [name for name in digests if name in there]
    same = set(_each("compare", present, lambda n: _is_same(store, there[n], folder, digests[n])))
    others = sorted(set(present) - same)
    marked = CHECKSUMS in there
    final = marked and _digest(store, CHECKSUMS) == hash_file(folder / CHECKSUMS)
    if marked and not final:
        others.append(CHECKSUMS)
    if others and not overwrite:
        raise StageError(
            f"Expected this release or nothing at {uri}; found other content under "
            f"{len(others)} of its names ({', '.join(others[:_NUM_NAMED])}). Give the release "
            "another release.version, or publish with --overwrite."
        )
    if others and marked:
        _calling(store.uri, lambda: store.fs.rm_file(store.path_of(CHECKSUMS)))
        final = False
    due = [name for name in digests if name not in same]
    _each("upload", due, lambda name: _upload(store, folder, name))
    _require_sizes(store, folder, digests)
    if not final:
        _upload(store, folder, CHECKSUMS)
        _require_sizes(store, folder, [CHECKSUMS])
    uploaded = due if final else [*due, CHECKSUMS]
    return PushReport(
        uri,
        num_uploaded=len(uploaded),
        num_kept=len(digests) + 1 - len(uploaded),
        num_bytes=sum((folder / name).stat().st_size for name in uploaded),
        extra=tuple(sorted(set(there) - set(digests) - {CHECKSUMS})),
    )


def _verified(folder: Path) -> dict[str, str]:
    """Return name to sha256 of a release's files, which are what its checksums say."""
    path = folder / CHECKSUMS
    if not path.is_file():
        raise DataError(
            f"Expected a release at {folder}; found no {CHECKSUMS}. Run the stage release."
        )
    digests = read_checksums(path)
    here = {
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and file != path
    }
    wrong = sorted(here ^ set(digests)) or [
        name
        for name, digest in digests.items()
        if unsafe_name(name) or hash_file(folder / name) != digest
    ]
    if wrong:
        raise DataError(
            f"Expected the files that {path} lists, unchanged; found {len(wrong)} that differ "
            f"({', '.join(wrong[:_NUM_NAMED])}). Run the stage release again."
        )
    return digests


def _is_same(store: Store, there: StoredFile, folder: Path, digest: str) -> bool:
    path = folder / there.name
    if there.num_bytes != path.stat().st_size:
        return False
    if there.md5 is not None:
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "md5").hexdigest() == there.md5:
                return True
    return _digest(store, there.name) == digest


def _digest(store: Store, name: str) -> str:
    """Return the sha256 of a file in the store, read from there."""

    def read() -> str:
        digest = hashlib.sha256()
        with store.fs.open(store.path_of(name), "rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    return _calling(store.uri, read)


def _upload(store: Store, folder: Path, name: str) -> bool:
    _calling(store.uri, lambda: store.fs.put_file(str(folder / name), store.path_of(name)))
    return True


def _require_sizes(store: Store, folder: Path, names: Iterable[str]) -> None:
    there = store.list_files().files
    for name in names:
        size = (folder / name).stat().st_size
        if name not in there or there[name].num_bytes != size:
            found = f"{there[name].num_bytes} bytes" if name in there else "nothing"
            raise UnavailableError(
                f"Expected {name} with {size} bytes at {store.uri} after its upload; found {found}."
                " Run this again."
            )


def _each(what: str, names: list[str], act: Callable[[str], bool]) -> list[str]:
    """Do something for each name, a few at a time; return the names for which it gave true."""
    with (
        ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix=what) as threads,
        Progress(f"publish: {what}", len(names)) as progress,
    ):
        chosen = []
        for name, is_so in zip(names, threads.map(act, names), strict=True):
            progress.advance()
            if is_so:
                chosen.append(name)
        return chosen


def _calling(uri: str, act: Callable[[], T]) -> T:
    try:
        return act()
    except Exception as error:  # backends raise errors of their own libraries
        raise UnavailableError(
            f"Expected to read and write below {uri}; found {type(error).__name__}: {error}. Check "
            "the network, the rights, and the credentials in the backend's own environment "
            "variables; then run this again."
        ) from error
