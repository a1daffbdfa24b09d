"""The files of one partition as they lie on disk, and what its own lists say of them.

Nothing is decoded here: files are listed, hashed, and laid over the CAF manifest or the labels of
FFHQ-Aging. What can be refused without opening a picture is refused here, with the reason.
"""

import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agetf_pipeline.config.ingest import SourceConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.workspace import FFHQ_PARTITION, is_caf
from agetf_pipeline.data.caf import MANIFEST_NAME, ManifestRow, match_manifest, read_manifest
from agetf_pipeline.data.corpus_lists import apply_labels, apply_manifest, refusals_of
from agetf_pipeline.data.corpus_store import SLICE, CorpusStore
from agetf_pipeline.data.ffhq_aging import LABELS_NAME, Label, image_number_of, read_labels
from agetf_pipeline.data.forgotten import DETAIL, Forgotten
from agetf_pipeline.data.listing import Found, Scanned, escape_name, scan_files
from agetf_pipeline.data.quarantine import FORGOTTEN

_NUM_HASHING_THREADS = 4
_NOTHING = Forgotten()


@dataclass
class Corpus:
    """What a partition's own list says of files that are given, in memory.

    Attributes:
        refused: Relative path to reason and detail, of the files that the list turns away.
        absent: Listed path, reason and detail, of the rows of a manifest without a file.
        labels: The crowd's labels by image number; None without them (FFHQ-Aging).
        rows: Rows of the manifest by relative path (CAF).
    """

    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    absent: list[tuple[str, str, str]] = field(default_factory=list)
    labels: dict[int, Label] | None = None
    rows: dict[str, ManifestRow] = field(default_factory=dict)


def list_name(partition: str) -> str:
    """Return the name of the file that says what is known of a partition's images."""
    return MANIFEST_NAME if is_caf(partition) else LABELS_NAME


def read_lists(folder: Path, partition: str, files: list[Found]) -> Corpus:
    """Lay a partition's manifest or labels over its files, which are not read.

    Raises:
        DataError: The labels or the manifest cannot be used.
    """
    if not is_caf(partition):
        path = folder / LABELS_NAME
        return Corpus(labels=read_labels(path) if path.is_file() else None)
    listing = match_manifest(read_manifest(folder), files)
    return Corpus(refusals_of(listing), listing.rejected, None, listing.rows)


def add_labels(rows: list[dict[str, Any]], corpus: Corpus) -> None:
    """Put what the corpus says of each image into its row, by `_relative`, which goes."""
    numbers = [image_number_of(row["_relative"]) for row in rows]
    shared = {number for number, count in Counter(numbers).items() if count > 1}
    for row, number in zip(rows, numbers, strict=True):
        listed = corpus.rows.get(row.pop("_relative"))
        if listed is not None:
            row.update(said_by_row(listed.subject, listed.true_age_years, listed.age_group))
        elif row["partition"] == FFHQ_PARTITION:
            label = (corpus.labels or {}).get(-1 if number is None else number)
            row.update(said_by_label(number, label, number in shared))


def said_by_row(
    subject: str | None, true_age_years: float | None, age_group: str | None
) -> dict[str, Any]:
    """Return what a row of a manifest puts into the table `images`."""
    return {"subject": subject, "true_age_years": true_age_years, "age_group": age_group}


def said_by_label(number: int | None, label: Label | None, is_shared: bool) -> dict[str, Any]:
    """Return what a number, and the label that has it, put into the table `images`."""
    # Two different pictures of one number: which one the crowd saw is not known.
    return {"image_number": number} if label is None or is_shared else asdict(label)


def read_corpus(
    store: CorpusStore,
    folder: Path,
    source: SourceConfig,
    partition: str,
    max_bytes: int,
    forgotten: Forgotten = _NOTHING,
    base: str = "",
) -> None:
    """List and hash the files of a partition, and lay them over its manifest or labels.

    Args:
        store: An empty one, of this folder; takes what is found.
        folder: Of the partition; it need not exist.
        source: How the corpus is to be read.
        partition: `ffhq_aging` or `caf/<shard>`.
        max_bytes: Files over this size are refused unread.
        forgotten: What must not be taken in.
        base: The folder as tables name it.

    Raises:
        DataError: The labels or the manifest cannot be used.
    """
    besides = (list_name(partition),)
    if folder.is_dir():
        _add_files(store, scan_files(folder, besides, source.follow_links), max_bytes)
    if not source.follow_links:
        _refuse_foreign_list(folder, besides[0])
    (apply_manifest if is_caf(partition) else apply_labels)(store, folder)
    _hash_contents(store, partition)
    if forgotten.entries:
        _refuse_forgotten(store, partition, forgotten, base)


def hash_listing(store: CorpusStore) -> str:
    """Return one hash over every file's name and content, or why it has none.

    The same as of the canonical JSON of a dictionary from names, escaped, to those.
    """
    odd = store.value("SELECT 1 FROM files WHERE escaped(name) != CAST(name AS TEXT) LIMIT 1")
    found = store.slices(
        "SELECT escaped(name), IIF(image_id IS NULL, reason, LOWER(HEX(image_id))) "
        "FROM files ORDER BY " + ("escaped(name)" if odd else "name")
    )
    return _hash_object((name, json.dumps(said)) for rows in found for name, said in rows)


def hash_elsewhere(store: CorpusStore) -> str:
    """Return one hash over what other partitions hold of this one's contents, likewise."""
    held = store.slices(
        "SELECT LOWER(HEX(image_id)), path, subject, age FROM elsewhere ORDER BY image_id"
    )
    return _hash_object(
        (image_id, json.dumps(said, separators=(",", ":")))
        for rows in held
        for image_id, *said in rows
    )


def _hash_object(items: Iterable[tuple[str, str]]) -> str:
    """Return the hash of the canonical JSON of an object: names in order, and their JSON."""
    digest = hashlib.sha256(b"{")
    for place, (name, value) in enumerate(items):
        digest.update(f"{',' if place else ''}{json.dumps(name)}:{value}".encode())
    digest.update(b"}")
    return digest.hexdigest()


def _add_files(store: CorpusStore, files: Iterable[Scanned], max_bytes: int) -> None:
    walk = iter(files)
    while some := list(itertools.islice(walk, SLICE)):
        # In the order of the store's own pages.
        rows = sorted((os.fsencode(relative), *found) for relative, *found in some)
        store.run_many(
            "INSERT INTO files (name, num_bytes, readable, reason, detail) VALUES (?, ?, ?, ?, ?)",
            (
                (name, num_bytes, *_first_look(num_bytes, reason, detail, max_bytes))
                for name, num_bytes, reason, detail in rows
            ),
        )


def _first_look(
    num_bytes: int | None, reason: str | None, detail: str, max_bytes: int
) -> tuple[bool, str | None, str | None]:
    """Return whether a file is to be read, and why it is not."""
    if reason is not None:
        return False, reason, detail
    if num_bytes is not None and num_bytes > max_bytes:
        detail = f"{num_bytes} bytes, over the limit of {max_bytes}; it was not read."
        return False, "too_many_bytes", detail
    return True, None, None


def _hash_contents(store: CorpusStore, partition: str) -> None:
    num_files = store.value("SELECT COUNT(*) FROM files WHERE readable")
    detail = "The file cannot be read: check its permissions and the disk."
    with (
        ThreadPoolExecutor(_NUM_HASHING_THREADS) as threads,
        Progress(f"hashing {partition}", num_files) as progress,
    ):
        for rows in store.by_name("1", "readable"):
            names = [name for name, _ in rows]
            found = list(zip(threads.map(_hash, map(store.path_of, names)), names, strict=True))
            store.run_many(
                "UPDATE files SET image_id = ? WHERE name = ?",
                [(digest, name) for digest, name in found if digest is not None],
            )
            store.run_many(
                "INSERT INTO contents VALUES (?, ?)",
                sorted((digest, name) for digest, name in found if digest is not None),
            )
            store.refuse(("unreadable", detail, name) for digest, name in found if digest is None)
            progress.advance(len(rows))


def _hash(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - a Path costs more than that
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return None


def _refuse_forgotten(store: CorpusStore, partition: str, forgotten: Forgotten, base: str) -> None:
    """Turn away what was forgotten, whatever else is known of it: other details name people."""
    store.run("CREATE TEMP TABLE people (subject TEXT PRIMARY KEY)")
    for rows in store.slices("SELECT DISTINCT subject FROM listed WHERE subject IS NOT NULL"):
        people = [(name,) for (name,) in rows if forgotten.has_subject(name, partition)]
        store.run_many("INSERT INTO people VALUES (?)", people)
    theirs = "SELECT {} FROM listed WHERE subject IN (SELECT subject FROM people)"
    refuse = "UPDATE files SET reason = ?, detail = ?, row = NULL WHERE "
    why = (FORGOTTEN, DETAIL)
    store.run(f"{refuse} row IN ({theirs.format('number')})", why)
    store.run(f"{refuse} name IN ({theirs.format('CAST(path AS BLOB)')})", why)
    store.run_many(
        f"{refuse} name IN (SELECT name FROM contents WHERE image_id = ?)",
        ((*why, bytes.fromhex(image_id)) for image_id in sorted(forgotten.image_ids)),
    )
    refuse = "UPDATE absent SET reason = ?, detail = ? WHERE "
    store.run(f"{refuse} path IN ({theirs.format('path')})", why)
    last = ""
    while paths := store.run(
        "SELECT path FROM absent WHERE path > ? ORDER BY path LIMIT ?", (last, SLICE)
    ).fetchall():
        last = paths[-1][0]
        its = [path for (path,) in paths if forgotten.has_path(base, path)]
        store.run_many(f"{refuse} path = ?", ((*why, path) for path in its))


def _refuse_foreign_list(folder: Path, name: str) -> None:
    """Refuse a list that is a link out of its folder: it would be read, and quoted in messages.

    Raises:
        DataError: It is one.
    """
    root, target = os.path.realpath(folder), os.path.realpath(folder / name)
    if not target.startswith(root + os.sep):
        raise DataError(
            f"Expected {folder / name} to lie in its folder; found a link that leads out of it. "
            "Copy the file into the folder, or set follow_links for this corpus."
        )


def forgotten_names(store: CorpusStore) -> list[str]:
    """Return files, and rows of the list, that are turned away as forgotten, escaped, sorted."""
    files = store.run("SELECT escaped(name) FROM files WHERE reason = ?", (FORGOTTEN,))
    absent = store.run("SELECT path, num_rows FROM absent WHERE reason = ?", (FORGOTTEN,))
    return sorted(
        [name for (name,) in files]
        + [escape_name(path) for path, num_rows in absent for _ in range(num_rows)]
    )
