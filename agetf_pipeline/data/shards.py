"""CAF shards as they arrive: which are complete, which are not and why, and which went away.

A shard is complete when its manifest can be read and every file that it lists is there and not
empty. Nothing marks a shard beyond that, so a manifest is to be written last. What was found is
kept in a ledger: a shard whose files have the sizes and times of before is not read again.
"""

import json
import os
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.hashing import hash_bytes, hash_file
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace, caf_partition, shard_of
from agetf_pipeline.data.caf import MANIFEST_NAME, match_manifest, read_manifest
from agetf_pipeline.data.corpora import caf_folder, list_shard_folders
from agetf_pipeline.data.forgotten import Forgotten, read_forgotten
from agetf_pipeline.data.listing import escape_name, list_files

State = Literal["complete", "incomplete", "broken", "badly_named", "removed"]

_LEDGER_VERSION = 1
_NUM_NAMED = 3
_Sizes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Shard:
    """A shard as it lies on disk.

    Attributes:
        name: Its folder's name (printable ASCII, whatever the folder is called).
        state: `complete`; `incomplete` (something is still missing); `broken` (it cannot be read);
            `badly_named` (the folder's name cannot be a partition's); `removed` (it was complete,
            or is known as a partition, and its folder is gone).
        reason: Why it is not complete, a sentence.
        remedy: What to do about it, a sentence.
        fingerprint: 64 hexadecimal digits over the manifest's bytes and the names, sizes and times
            of the files it lists; empty where it is not complete.
        num_files: Files that the manifest lists and that are there.
    """

    name: str
    state: State
    reason: str = ""
    remedy: str = ""
    fingerprint: str = ""
    num_files: int = 0


def scan_shards(
    config: PipelineConfig, workspace: Workspace, known: Collection[str] | None = None
) -> list[Shard]:
    """Return every shard on disk, and those that went away, sorted by name.

    Args:
        config: Says where the shards lie.
        workspace: Holds the ledger, `data/.state/shards/caf.json`.
        known: The partitions that exist: one of them without a folder was removed. None: what the
            ledger remembers.

    Raises:
        DataError: The folder cannot be listed, is itself one shard, or is not there although
            shards were: that is no empty source but a failed read.
    """
    with exclusive_lock(*_scan_lock(workspace)):
        return _scan(config, workspace, known, write=True)


def look_at_shards(config: PipelineConfig, workspace: Workspace) -> list[Shard]:
    """Return what `scan_shards` does, without taking its lock and without writing its ledger."""
    return _scan(config, workspace, None, write=False)


def _scan(
    config: PipelineConfig, workspace: Workspace, known: Collection[str] | None, write: bool
) -> list[Shard]:
    path, forgotten = ledger_path(workspace), read_forgotten(workspace)
    ledger = _read_ledger(path)
    folder = caf_folder(config, workspace)
    if not folder.is_dir():
        _refuse_lost_folder(folder, {*ledger["shards"], *(known or ())})
        return []
    names, bad_names = list_shard_folders(config, workspace)
    entries: dict[str, dict] = {}
    for name in names:
        sizes, problem = _walk(folder / name, config.ingest.caf.follow_links)
        signature = problem or hash_bytes(json.dumps(sorted(sizes.items())).encode())
        if forgotten.digest:  # who was forgotten, and is gone, is not missing
            signature = hash_bytes(f"{signature}{forgotten.digest}".encode())
        entry = ledger["shards"].get(name)
        if entry is None or entry["signature"] != signature:
            follow_links = config.ingest.caf.follow_links
            base = workspace.relative(folder / name)
            shard = _examine(folder / name, sizes, problem, follow_links, forgotten, base)
            entry = {"signature": signature, "shard": asdict(shard)}
        entries[name] = entry
    removed = sorted(_removed(ledger, known) - set(names))
    renewed = {"version": _LEDGER_VERSION, "shards": entries, "removed": removed}
    if write and renewed != ledger:
        write_json(path, renewed)
    shards = [Shard(**entry["shard"]) for entry in entries.values()]
    shards += [_badly_named(name) for name in bad_names]
    shards += [_gone(name, folder) for name in removed]
    return sorted(shards, key=lambda shard: (shard.name, shard.state))


def ledger_path(workspace: Workspace) -> Path:
    """Return the file that keeps what the last scan found. Without it, every shard is read again.

    `removed` in it names the shards that went away.
    """
    return workspace.state / "shards" / "caf.json"


def _read_ledger(path: Path) -> dict:
    try:
        ledger = read_json(path)
        if ledger["version"] == _LEDGER_VERSION:
            return ledger
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent, or not ours: it holds nothing that cannot be found again
    return {"version": _LEDGER_VERSION, "shards": {}, "removed": []}


def _refuse_lost_folder(folder: Path, before: Collection[str]) -> None:
    if before:
        raise DataError(
            f"Expected the CAF shards in {folder}, {len(before)} of them when they were last read; "
            "found no such folder. Mount it or put it back; to work without CAF for good, make it "
            "an empty folder."
        )


def _removed(ledger: dict, known: Collection[str] | None) -> set[str]:
    if known is not None:
        return set(known)
    complete = {n for n, e in ledger["shards"].items() if e["shard"]["state"] == "complete"}
    return complete | set(ledger["removed"])


def _walk(folder: Path, follow_links: bool) -> tuple[dict[str, tuple[int, int]], str]:
    """Return size and time (ns) of every visible file by escaped path, and why that failed."""
    sizes: dict[str, tuple[int, int]] = {}
    pending, visited = [("", os.fspath(folder))], set()
    while pending:
        prefix, current = pending.pop()
        try:
            entries = list(os.scandir(current))
        except OSError as error:
            return {}, f"{escape_name(current)} cannot be listed: {error.strerror}."
        for entry in entries:
            if entry.name.startswith("."):
                continue
            relative = f"{prefix}{entry.name}"
            try:
                status = entry.stat()
            except OSError:  # a link to nothing, or gone since: the manifest is the judge
                sizes[escape_name(relative)] = (-1, -1)
                continue
            if not stat.S_ISDIR(status.st_mode):
                sizes[escape_name(relative)] = (status.st_size, status.st_mtime_ns)
            elif not entry.is_symlink() or follow_links:
                inode = (status.st_dev, status.st_ino)
                if inode not in visited:
                    visited.add(inode)
                    pending.append((f"{relative}/", entry.path))
    return sizes, ""


def _examine(
    folder: Path,
    sizes: _Sizes,
    problem: str,
    follow_links: bool,
    forgotten: Forgotten,
    base: str,
) -> Shard:
    """Read a shard's manifest and lay it over the files."""
    name, manifest = folder.name, folder / MANIFEST_NAME
    if problem:
        return Shard(name, "broken", problem, "Grant the right to read it, or remove it.")
    if MANIFEST_NAME not in sizes:
        return Shard(
            name,
            "incomplete",
            f"There is no {MANIFEST_NAME} ({len(sizes)} files so far).",
            f"Write {MANIFEST_NAME} (path,subject,age) once all images are there.",
        )
    try:
        manifest_hash = hash_file(manifest)
        rows = read_manifest(folder)
        listing = match_manifest(rows, list_files(folder, (MANIFEST_NAME,), follow_links))
    except DataError as error:
        return Shard(name, "broken", str(error), f"Correct {MANIFEST_NAME}.")
    except OSError as error:
        reason = f"{MANIFEST_NAME} cannot be read: {error.strerror}."
        return Shard(name, "broken", reason, "Grant the right to read it, or write it again.")
    listed = sorted(escape_name(found) for found in listing.rows)
    empty = [found for found in listed if sizes.get(found, (0, 0))[0] <= 0]
    missing = [path for path, reason, _ in listing.rejected if reason == "missing_file"]
    people = {row.listed for row in rows if forgotten.has_subject(row.subject, caf_partition(name))}
    gone = {path for path in missing if path in people or forgotten.has_path(base, path)}
    absent = [escape_name(path) for path in missing if path not in gone]
    if absent or empty or not (listed or gone):
        return Shard(name, "incomplete", *_what_is_missing(absent, empty, len(listed)))
    facts = json.dumps([manifest_hash, [(path, *sizes[path]) for path in listed]])
    return Shard(name, "complete", fingerprint=hash_bytes(facts.encode()), num_files=len(listed))


def _what_is_missing(absent: list[str], empty: list[str], num_listed: int) -> tuple[str, str]:
    """Return the reason and the remedy."""
    parts = []
    for files, what in ((absent, "missing"), (empty, "empty")):
        if files:
            more = f" and {len(files) - _NUM_NAMED} more" if len(files) > _NUM_NAMED else ""
            parts.append(f"{len(files)} {what} ({', '.join(files[:_NUM_NAMED])}{more})")
    if not parts:
        return f"{MANIFEST_NAME} lists no file.", "Add a row for each image."
    total = num_listed + len(absent)
    return (
        f"Of {total} files that {MANIFEST_NAME} lists: {', '.join(parts)}.",
        "Add the files, or remove their rows.",
    )


def _badly_named(name: str) -> Shard:
    return Shard(
        escape_name(name),
        "badly_named",
        "The folder's name cannot be a partition's.",
        "Rename it with 1-64 letters, digits, '-' or '_'.",
    )


def _gone(name: str, folder: Path) -> Shard:
    return Shard(
        name,
        "removed",
        f"Its folder is no longer in {folder}; its partition and its tables are kept.",
        "Put the folder back, or forget the shard: docs/shards.md says how.",
    )


def forget_shard(config: PipelineConfig, workspace: Workspace, name: str) -> list[Path]:
    """Delete the tables, reports and pictures of a removed shard; return the files that went.

    What all partitions share (the training manifest, grids of faces, releases) is made anew by its
    stages. It may come back with its folder: people are forgotten by `agetf forget`.

    Raises:
        DataError: Its folder is still there, or the name is not a shard's.
    """
    partition = caf_partition(name)
    folder = caf_folder(config, workspace) / name
    if folder.exists():
        raise DataError(
            f"Expected the folder of a shard to be gone before it is forgotten; found {folder}. "
            "Move it away first."
        )
    files = [
        *workspace.tables.glob(f"*/{partition}.parquet"),
        *(workspace.stats / "stages").glob(f"*/{partition}.json"),
        workspace.stats / "quarantine" / f"{partition}.csv",
        workspace.stats / "enhance_audit" / f"{name}.csv",
        *(workspace.stats / "filter").glob(f"{partition}.*"),
        *(workspace.state / "ingest").glob(f"data/tables/*/{partition}.parquet"),
        *(file for folder in _folders_of(workspace, partition) for file in folder.rglob("*")),
    ]
    gone = sorted(path for path in files if path.is_file())
    for path in gone:
        path.unlink()
    for folder in _folders_of(workspace, partition):
        _remove_empty(folder)
    with exclusive_lock(*_scan_lock(workspace)):
        ledger = _read_ledger(ledger_path(workspace))
        ledger["shards"].pop(name, None)
        ledger["removed"] = [other for other in ledger["removed"] if other != name]
        write_json(ledger_path(workspace), ledger)
    return gone


def _folders_of(workspace: Workspace, partition: str) -> list[Path]:
    """Return the folders that hold files of one partition alone."""
    return [
        workspace.processed / "caf_enhanced" / shard_of(partition),
        workspace.processed / "faces" / partition,
        workspace.stats / "captions" / partition,
        workspace.stats / "recheck" / partition,
        workspace.root / "data" / "cache" / "captions" / "embeddings" / partition,
        *(workspace.state / "parts").glob(f"*/{partition}"),
        *(workspace.state / "crew").glob(f"*/{partition}"),
    ]


def _remove_empty(folder: Path) -> None:
    """Remove a folder that holds nothing but folders."""
    for current, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # somebody put something there meanwhile: it stays
            Path(current).rmdir()


def _scan_lock(workspace: Workspace) -> tuple[Path, str]:
    return workspace.state / "locks" / "shards.lock", "the scan of the CAF shards"
