"""The files of one partition as they lie on disk, and what its own lists say of them.

Nothing is decoded here: files are listed, hashed, and laid over the CAF manifest or the labels of
FFHQ-Aging. What can be refused without opening a picture is refused here, with the reason.
"""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from agetf_pipeline.config.ingest import SourceConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import canonical_json, hash_bytes, hash_file
from agetf_pipeline.core.workspace import is_caf
from agetf_pipeline.data.caf import MANIFEST_NAME, ManifestRow, match_manifest, read_manifest
from agetf_pipeline.data.ffhq_aging import (
    LABELS_NAME,
    Label,
    explain_coverage,
    read_labels,
)
from agetf_pipeline.data.forgotten import DETAIL, Forgotten
from agetf_pipeline.data.listing import Found, escape_name, list_files
from agetf_pipeline.data.quarantine import FORGOTTEN

_NUM_HASHING_THREADS = 4
_NOTHING = Forgotten()


@dataclass
class Corpus:
    """One partition as it lies on disk, and what its own lists say of it.

    Attributes:
        files: Every visible file.
        ids: Relative path to sha256, of the files that could be read.
        refused: Relative path to reason and detail, of the files that go no further.
        absent: Listed path, reason and detail, of the rows of a manifest without a file.
        labels: The crowd's labels by image number; None without them (FFHQ-Aging).
        rows: Rows of the manifest by relative path (CAF).
        listed: All rows of the manifest by the path that they list, or that it was found to mean.
        by_other_name: Files that the manifest lists by another spelling.
        messages: Sentences for a person.
    """

    files: list[Found]
    ids: dict[str, str]
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    absent: list[tuple[str, str, str]] = field(default_factory=list)
    labels: dict[int, Label] | None = None
    rows: dict[str, ManifestRow] = field(default_factory=dict)
    listed: dict[str, list[ManifestRow]] = field(default_factory=dict)
    by_other_name: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)


def list_name(partition: str) -> str:
    """Return the name of the file that says what is known of a partition's images."""
    return MANIFEST_NAME if is_caf(partition) else LABELS_NAME


def read_corpus(
    folder: Path,
    source: SourceConfig,
    partition: str,
    max_bytes: int,
    forgotten: Forgotten = _NOTHING,
    base: str = "",
) -> Corpus:
    """List and hash the files of a partition, and lay them over its manifest or labels.

    Args:
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
    files = list_files(folder, besides, source.follow_links) if folder.is_dir() else []
    corpus = Corpus(files, {})
    for found in files:
        if found.reason is not None:
            corpus.refused[found.relative] = (found.reason, found.detail)
        elif found.num_bytes is not None and found.num_bytes > max_bytes:
            detail = f"{found.num_bytes} bytes, over the limit of {max_bytes}; it was not read."
            corpus.refused[found.relative] = ("too_many_bytes", detail)
    if not source.follow_links:
        _refuse_foreign_list(folder, besides[0])
    if is_caf(partition):
        _apply_manifest(corpus, folder)
    else:
        _apply_labels(corpus, folder)
    readable = [f for f in files if f.reason is None and (f.num_bytes or 0) <= max_bytes]
    with ThreadPoolExecutor(_NUM_HASHING_THREADS) as threads:
        for found, digest in zip(readable, threads.map(_hash, readable), strict=True):
            if digest is None:
                detail = "The file cannot be read: check its permissions and the disk."
                corpus.refused[found.relative] = ("unreadable", detail)
            else:
                corpus.ids[found.relative] = digest
    if forgotten.entries:
        _refuse_forgotten(corpus, partition, forgotten, base)
    return corpus


def read_lists(folder: Path, partition: str, files: list[Found]) -> Corpus:
    """Lay a partition's manifest or labels over its files, which are not read.

    Raises:
        DataError: The labels or the manifest cannot be used.
    """
    corpus = Corpus(files, {})
    (_apply_manifest if is_caf(partition) else _apply_labels)(corpus, folder)
    return corpus


def _refuse_forgotten(corpus: Corpus, partition: str, forgotten: Forgotten, base: str) -> None:
    """Turn away what was forgotten, whatever else is known of it: other details name people."""
    people = {
        name
        for name, listed in corpus.listed.items()
        if any(forgotten.has_subject(row.subject, partition) for row in listed)
    }
    for found in corpus.files:
        name = found.relative
        if corpus.ids.get(name) in forgotten.image_ids or name in people:
            corpus.refused[name] = (FORGOTTEN, DETAIL)
            corpus.rows.pop(name, None)
    corpus.absent = [
        (listed, FORGOTTEN, DETAIL)
        if listed in people or forgotten.has_path(base, listed)
        else (listed, reason, detail)
        for listed, reason, detail in corpus.absent
    ]


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


def _apply_manifest(corpus: Corpus, folder: Path) -> None:
    rows = read_manifest(folder)
    listing = match_manifest(rows, corpus.files)
    corpus.rows = listing.rows
    for row in rows:
        corpus.listed.setdefault(row.listed, []).append(row)
    for relative, row in listing.rows.items():
        corpus.listed.setdefault(relative, []).append(row)
    corpus.by_other_name = listing.by_other_name
    corpus.absent = listing.rejected
    corpus.messages += listing.messages
    for relative in listing.unlisted:
        detail = f"Not in {MANIFEST_NAME}: add a row (subject and age may be empty), or remove it."
        corpus.refused.setdefault(relative, ("not_listed", detail))
    for relative, detail in listing.conflicting.items():
        corpus.refused.setdefault(relative, ("conflicting_rows", detail))
    for relative, row in listing.rows.items():
        if row.bad_age is not None:
            detail = (
                f"The manifest says age {row.bad_age!r}; expected years from 0 to 120, or nothing "
                "where the age is not known."
            )
            corpus.refused.setdefault(relative, ("bad_age", detail))
    num_unknown = sum(row.true_age_years is None for row in listing.rows.values())
    if num_unknown:
        corpus.messages.append(
            f"Images without an age in the manifest: {num_unknown} of {len(listing.rows)}. Their "
            "ages are estimated, and they calibrate nothing."
        )


def _apply_labels(corpus: Corpus, folder: Path) -> None:
    path = folder / LABELS_NAME
    if path.is_file():
        corpus.labels = read_labels(path)
    elif corpus.files:
        corpus.messages.append(
            f"There is no {LABELS_NAME} beside the images: they go on without the crowd's labels."
        )
    else:
        corpus.messages.append(
            f"There are no FFHQ-Aging images in {folder}: the CAF shards go on alone."
        )


def hash_files(corpus: Corpus) -> str:
    """Return one hash over every file's name and content, or why it has none."""
    found = {
        escape_name(f.relative): corpus.ids.get(f.relative) or corpus.refused[f.relative][0]
        for f in corpus.files
    }
    return hash_bytes(canonical_json(found).encode())


def _hash(found: Found) -> str | None:
    try:
        return hash_file(found.path)
    except OSError:
        return None


def explain_labels(numbers: Sequence[int | None], corpus: Corpus) -> list[str]:
    """Say how labels and images fit together, by the `image_number` of each image taken."""
    if corpus.labels is None:
        return []
    messages = explain_coverage(corpus.labels, numbers)
    shared = sum(c for n, c in Counter(numbers).items() if c > 1 and n in corpus.labels)
    if shared:
        messages.append(
            f"Images that share their number with another picture: {shared}. Which of them a row "
            f"of {LABELS_NAME} means cannot be told: they go on without labels. Keep one a number."
        )
    return messages
