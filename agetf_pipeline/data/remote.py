"""Copy photographs from shared storage into the folder that ingest reads, new and changed ones.

What was copied stands in a ledger, a line a file, written when the file is whole: a pull that is
killed goes on with what is missing. Nothing is ever deleted here. The list of a shard (its
manifest) follows the files, since with it the shard counts as complete.
"""

import hashlib
import json
import logging
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from agetf_pipeline.core.errors import DataError, StageError, UnavailableError
from agetf_pipeline.core.files import atomic_path, write_text
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.data.listing import escape_name
from agetf_pipeline.data.storage import Store, StoredFile, StoredFolder, open_store

_LOGGER = logging.getLogger(__name__)
_NUM_THREADS = 4
_MAX_FAILURES = 20
"""After so many files that failed it is the network or the disk, not the files."""
_NUM_NAMED = 3


@dataclass(frozen=True)
class PullReport:
    """What a pull did.

    Attributes:
        uri: Where the files lie.
        folder: Where they were copied to.
        num_listed: Files at the source that can be taken.
        num_new: Copied, and not here before.
        num_changed: Copied over another content, or one that nothing vouched for.
        num_kept: Here already.
        num_bytes: Of what was copied.
        gone: Files that came from the source and are no longer there; the copies stay.
        refused: Names that were not taken, each with the reason.
        num_hidden: Names with a leading dot, which no stage reads.
    """

    uri: str
    folder: Path
    num_listed: int
    num_new: int
    num_changed: int
    num_kept: int
    num_bytes: int
    gone: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    num_hidden: int = 0

    def lines(self) -> list[str]:
        """Return the report as sentences, the first with the counts."""
        lines = [
            f"{self.uri} -> {self.folder}: {self.num_new} new, {self.num_changed} changed, "
            f"{self.num_kept} here already; {self.num_bytes / 1e6:,.1f} MB copied"
        ]
        if not self.num_listed:
            lines.append("Nothing is there yet.")
        if self.gone:
            named = _name_some(self.gone)
            lines.append(f"No longer at the source, kept here: {len(self.gone)} ({named}).")
        if self.refused:
            reasons = " ".join(f"{name}: {why}" for name, why in self.refused[:_NUM_NAMED])
            lines.append(f"Not taken: {len(self.refused)}. {reasons} Rename them at the source.")
        if self.num_hidden:
            lines.append(f"Hidden (a leading dot), left out: {self.num_hidden}.")
        return lines


def pull(
    uri: str,
    folder: Path,
    ledger: Path,
    last: str | None = None,
    what: str = "files",
    is_forgotten: Callable[[str], bool] = lambda _: False,
) -> PullReport:
    """Copy the new and changed files of a folder in shared storage.

    Args:
        uri: The folder, as fsspec names it.
        folder: Where the files go, under their names. It is made if absent.
        ledger: Remembers what was copied: size, and what the backend says of the content. Without
            it files are copied again, but for those whose MD5 the backend gives.
        last: File name that comes last in each folder at the top, and only when all other files of
            that folder are here: the manifest of a shard.
        what: For the progress.
        is_forgotten: Says of a file's name that it was forgotten: it is not fetched again.

    Raises:
        ConfigError: The URI cannot be used, see `open_store`.
        DataError: There is no such folder, or it is empty though files came from it before.
        StageError: Another pull is under way, or the disk is too small.
        UnavailableError: The listing failed, or some files could not be copied. The others were.
    """
    with exclusive_lock(ledger.with_suffix(".lock"), f"the pull to {folder}", wait=False):
        known = _read_ledger(ledger)
        store = open_store(uri)
        listing = store.list_files()
        if known and not listing.files:
            raise DataError(
                f"Expected files at {uri}, as before ({len(known)} were copied); found none. Check "
                f"the URI and the mount. If it is meant to be empty, delete {ledger}."
            )
        folder.mkdir(parents=True, exist_ok=True)
        refused = {**listing.refused, **_through_links(folder, listing)}
        wanted = [
            file
            for file in listing.files.values()
            if file.name not in refused
            and ((folder / file.name).exists() or not is_forgotten(file.name))
        ]
        with _writing(ledger, known) as lines:
            due = []
            for file in wanted:
                entry = known.get(file.name)
                if entry != (file.num_bytes, file.tag) or not _has_size(folder / file.name, file):
                    if not _same_content(folder / file.name, file):
                        due.append(file)
                    else:
                        _remember(lines, file)
            _refuse_small_disk(folder, due)
            new = [file for file in due if not (folder / file.name).exists()]
            failed = _copy_all(store, folder, due, last, lines, what)
        if failed:
            _raise_failed(uri, failed, len(due))
    return PullReport(
        uri,
        folder,
        num_listed=len(listing.files),
        num_new=len(new),
        num_changed=len(due) - len(new),
        num_kept=len(wanted) - len(due),
        num_bytes=sum(file.num_bytes for file in due),
        gone=tuple(sorted(escape_name(name) for name in set(known) - set(listing.files))),
        refused=tuple(sorted(refused.items())),
        num_hidden=listing.num_hidden,
    )


def _copy_all(
    store: Store, folder: Path, due: list[StoredFile], last: str | None, lines: TextIO, what: str
) -> dict[str, str]:
    """Copy files, a few at a time; return those that failed, each with the reason."""

    def group(file: StoredFile) -> str:
        return file.name.partition("/")[0] if last and "/" in file.name else ""

    lists = {group(f): f for f in due if last and f.name == f"{group(f)}/{last}"}
    others = [file for file in due if lists.get(group(file)) != file]
    waiting = Counter(group(file) for file in others)
    queue = deque(sorted(others, key=lambda file: (group(file), file.name)))
    queue.extendleft(file for name, file in lists.items() if not waiting[name])
    failed: dict[str, str] = {}
    spoilt: set[str] = set()
    running: dict[Future[None], StoredFile] = {}
    threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="pull")
    try:
        with Progress(f"pull {what}", len(due)) as progress:
            while running or (queue and len(failed) < _MAX_FAILURES):
                while queue and len(running) < 2 * _NUM_THREADS and len(failed) < _MAX_FAILURES:
                    file = queue.popleft()
                    running[threads.submit(_copy, store, file, folder / file.name)] = file
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    file = running.pop(future)
                    error = future.exception()
                    if error is None:
                        _remember(lines, file)
                        progress.advance()
                    else:
                        own = isinstance(error, DataError)
                        reason = str(error) if own else f"{type(error).__name__}: {error}"
                        failed[escape_name(file.name)] = reason
                        spoilt.add(group(file))
                        _LOGGER.warning("%s was not copied: %s", escape_name(file.name), reason)
                    its = group(file)
                    waiting[its] -= 1
                    if waiting[its] == 0 and its in lists and its not in spoilt:
                        queue.appendleft(lists[its])
    finally:
        threads.shutdown(cancel_futures=True)
    return failed


def _copy(store: Store, file: StoredFile, target: Path) -> None:
    """Copy one file whole, or leave what was there."""
    with atomic_path(target) as temporary:
        store.fs.get_file(store.path_of(file.name), str(temporary))
        num_bytes = temporary.stat().st_size
        if num_bytes != file.num_bytes:
            raise DataError(
                f"Expected {file.num_bytes} bytes, as listed; {num_bytes} arrived. It changed "
                "meanwhile, or the connection was cut: pull again."
            )


def _through_links(folder: Path, listing: StoredFolder) -> dict[str, str]:
    """Return the names whose folders here are links that lead out of `folder`, with the reason."""
    root = folder.resolve()
    parents = {name.rpartition("/")[0] for name in listing.files} - {""}
    outside = {parent for parent in parents if not (folder / parent).resolve().is_relative_to(root)}
    reason = "Its folder here is a link that leads elsewhere."
    return {name: reason for name in listing.files if name.rpartition("/")[0] in outside}


def _has_size(path: Path, file: StoredFile) -> bool:
    return path.is_file() and path.stat().st_size == file.num_bytes


def _same_content(path: Path, file: StoredFile) -> bool:
    """Whether a file that is here has the content that the backend's MD5 stands for."""
    if file.md5 is None or not _has_size(path, file):
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest() == file.md5


def _refuse_small_disk(folder: Path, due: list[StoredFile]) -> None:
    needed, free = sum(file.num_bytes for file in due), shutil.disk_usage(folder).free
    if needed > free:
        raise StageError(
            f"Expected {needed / 1e9:,.1f} GB free for {folder}; found {free / 1e9:,.1f} GB. Make "
            "room, or pull a part of the source."
        )


def _raise_failed(uri: str, failed: dict[str, str], num_due: int) -> None:
    some = "; ".join(f"{name}: {why}" for name, why in list(failed.items())[:_NUM_NAMED])
    raise UnavailableError(
        f"Expected to copy {num_due} files from {uri}; {len(failed)} failed ({some}). What was "
        "copied stays, and manifests wait for their files; run this again for the rest."
    )


def _name_some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return f"{', '.join(names[:_NUM_NAMED])}{more}"


def _read_ledger(path: Path) -> dict[str, tuple[int, str]]:
    """Return size and tag of what was copied. A line that a kill cut off counts as not written."""
    known: dict[str, tuple[int, str]] = {}
    if not path.is_file():
        return known
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            name, num_bytes, tag = json.loads(line)
        except (ValueError, TypeError):
            continue
        known[str(name)] = (num_bytes, tag)
    return known


@contextmanager
def _writing(path: Path, known: dict[str, tuple[int, str]]) -> Iterator[TextIO]:
    """Write the ledger anew, a line a file, and open it for more lines."""
    entries = sorted(known.items())
    write_text(path, "".join(json.dumps([name, *entry]) + "\n" for name, entry in entries))
    with path.open("a", encoding="utf-8") as stream:
        yield stream


def _remember(lines: TextIO, file: StoredFile) -> None:
    lines.write(json.dumps([file.name, file.num_bytes, file.tag]) + "\n")
    lines.flush()
