"""From what is known of a partition's files to the tables `images` and `quarantine`.

First every file's fate is decided, content by content; then the tables are written, some rows at a
time: `images` by content, `quarantine` by path.
"""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace
from agetf_pipeline.data.claims import Claim, claims_of, conflict_between, says_more
from agetf_pipeline.data.corpus import said_by_label, said_by_row
from agetf_pipeline.data.corpus_lists import label_of
from agetf_pipeline.data.corpus_store import CorpusStore
from agetf_pipeline.data.csv_files import for_spreadsheets
from agetf_pipeline.data.examinations import Examiner
from agetf_pipeline.data.ffhq_aging import image_number_of
from agetf_pipeline.data.listing import escape_name, is_utf8
from agetf_pipeline.data.probe import has_extension_of
from agetf_pipeline.data.quarantine import quarantine_frame, quarantine_row
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE, TableSpec
from agetf_pipeline.data.streaming import TableWriter, open_table
from agetf_pipeline.data.tables import empty_frame, table_path, to_frame, write_table

_GROUP_ROWS = 4096
"""Rows of a row group."""

_SLICE = 512
"""Rows that are Python's at a time; a multiple of them is a group."""

_UNUSED = (
    "This list names a person or an age where that one has none: it is not used. Put it there."
)


@dataclass
class Fates:
    """What became of a partition's files.

    Attributes:
        num_inputs: Files, and rows of the list without one.
        num_images: Those that were taken.
        reasons: Files of the others by reason.
        flags: Images by flag.
        num_contradicting: Images that an earlier partition has as other people or ages.
        num_unused: Duplicates of which more is said than of the one that was kept.
    """

    num_inputs: int = 0
    num_images: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    flags: Counter[str] = field(default_factory=Counter)
    num_contradicting: int = 0
    num_unused: int = 0


def want_candidates(store: CorpusStore) -> None:
    """Note which contents are to be examined: of every file that nothing speaks against."""
    store.run(
        "INSERT INTO wanted (image_id, name) SELECT c.image_id, MIN(c.name) FROM contents c "
        "CROSS JOIN files f ON f.name = c.name WHERE f.reason IS NULL GROUP BY c.image_id"
    )


def decide(store: CorpusStore, examiner: Examiner, base: str, fates: Fates) -> None:
    """Decide of every content that was examined which of its files is taken, and why no other is.

    Args:
        store: Claims are settled in it.
        examiner: Knows what was found.
        base: Folder of the corpus, for the paths.
        fates: Takes counts.
    """
    for findings in examiner.findings(store):
        first, last = min(findings), max(findings)
        held = {
            image_id.hex(): Claim(*claim)
            for image_id, *claim in store.run(
                "SELECT image_id, path, subject, age FROM kept WHERE image_id BETWEEN ? AND ?",
                (bytes.fromhex(first), bytes.fromhex(last)),
            )
        }
        taken: list[tuple[bytes]] = []
        for image_id, finding in findings.items():
            raw = bytes.fromhex(image_id)
            if finding["reason"] is not None:
                store.run(
                    "UPDATE files SET reason = ?, detail = ? WHERE reason IS NULL AND name IN "
                    "(SELECT name FROM contents WHERE image_id = ?)",
                    (finding["reason"], finding["detail"], raw),
                )
            elif image_id in held:
                taken += _choose(store, raw, held[image_id], base, fates)
            else:
                name = store.value("SELECT name FROM wanted WHERE image_id = ?", (raw,))
                reason = store.value("SELECT reason FROM files WHERE name = ?", (name,))
                taken += [(name,)] if reason is None else []
        store.run_many("UPDATE files SET taken = 1 WHERE name = ?", taken)
        fates.num_images += len(taken)


def _choose(
    store: CorpusStore, image_id: bytes, held: Claim, base: str, fates: Fates
) -> list[tuple[bytes]]:
    """Refuse the files of a content that are not the one that is held; return that, if it is one.

    Where several files have the content, or another partition has it.
    """
    taken = []
    for name, claim in claims_of(store, image_id, base):
        if claim.path == held.path:
            taken.append((name,))
            continue
        reason, detail = "duplicate", f"The same bytes as {held.path}, which was kept."
        if says_more(claim, held):
            fates.num_unused += 1
            detail = f"{detail} {_UNUSED}"
        if differing := conflict_between(claim, held):
            fates.num_contradicting += 1
            reason, detail = (
                "conflicting_rows",
                f"The same bytes as {held.path}, which was kept; there it is listed "
                f"with {differing}. Correct one of the two lists.",
            )
        store.run(
            "UPDATE files SET reason = ?, detail = ?, duplicate_of = ? WHERE name = ?",
            (reason, detail, held.path, name),
        )
    return taken


def write_images(store: CorpusStore, examiner: Examiner, base: str, fates: Fates) -> Path:
    """Write the table `images` of the files that are taken; return its file."""
    workspace, partition = examiner.workspace, examiner.partition
    if partition == FFHQ_PARTITION:
        _count_numbers(store)
    path = table_path(workspace, IMAGES, partition)
    with open_table(path, IMAGES) as writer:
        rows = _image_rows(store, examiner, base)
        group: list[pl.DataFrame] = []
        while some := list(itertools.islice(rows, _SLICE)):
            fates.flags.update(flag for row in some for flag in row["flags"])
            store.run_many(
                "INSERT OR IGNORE INTO names VALUES (?)",
                (
                    (row["face_path"].rpartition("/")[2],)
                    for row in some
                    if row["face_path"] != row["path"]
                ),
            )
            group.append(to_frame(some, IMAGES))
            if len(group) == _GROUP_ROWS // _SLICE:
                _write_group(writer, group)
        if group:
            _write_group(writer, group)
    return path if fates.num_images else _write_empty(workspace, IMAGES, partition)


def _write_group(writer: TableWriter, group: list[pl.DataFrame]) -> None:
    """Write slices as one row group; they are gone when it is."""
    rows = pl.concat(group, rechunk=True)
    group.clear()
    writer.write(rows)
    pa.default_memory_pool().release_unused()


def _write_empty(workspace: Workspace, spec: TableSpec, partition: str) -> Path:
    """Write a table without rows as every other stage does: its bytes are its rows' alone."""
    return write_table(workspace, spec, partition, empty_frame(spec))


def _count_numbers(store: CorpusStore) -> None:
    """Count the images of each number; -1 is that of names without one."""
    for rows in store.by_name("1", "taken"):
        numbers = Counter(image_number_of(os.fsdecode(name)) for name, _ in rows)
        store.run_many(
            "INSERT INTO numbers VALUES (?, ?) "
            "ON CONFLICT (number) DO UPDATE SET num_images = num_images + excluded.num_images",
            ((-1 if number is None else number, count) for number, count in numbers.items()),
        )


_TAKEN = (
    "SELECT c.image_id, f.name, f.num_bytes, f.other_name, l.subject, l.age, l.age_group, l.number "
    "FROM contents c CROSS JOIN files f ON f.name = c.name "
    "LEFT JOIN listed l ON l.number = f.row "
    "WHERE c.image_id BETWEEN ? AND ? AND f.taken ORDER BY c.image_id"
)


def _image_rows(store: CorpusStore, examiner: Examiner, base: str) -> Iterator[dict[str, Any]]:
    for findings in examiner.findings(store):
        ends = bytes.fromhex(min(findings)), bytes.fromhex(max(findings))
        for raw, name, num_bytes, other_name, *listed, number in store.run(_TAKEN, ends).fetchall():
            finding, relative = findings[raw.hex()], os.fsdecode(name)
            row = _image_row(examiner, store.path_of(name), f"{base}/{relative}", finding)
            if other_name:
                row["flags"].append("listed_by_other_name")
            row["flags"].sort()
            row["num_bytes"] = num_bytes
            if number is not None:
                row.update(said_by_row(*listed))
            elif examiner.partition == FFHQ_PARTITION:
                row.update(_said_by_number(store, relative))
            yield row


def _said_by_number(store: CorpusStore, relative: str) -> dict[str, Any]:
    number = image_number_of(relative)
    if number is None:
        return {}
    stored = store.value("SELECT label FROM labels WHERE number = ?", (number,))
    count = store.value("SELECT num_images FROM numbers WHERE number = ?", (number,))
    return said_by_label(number, None if stored is None else label_of(stored), count > 1)


_NO_IMAGE = dict.fromkeys(IMAGES.schema.names)


def _image_row(
    examiner: Examiner, found: str, path: str, finding: dict[str, Any]
) -> dict[str, Any]:
    """Return a row of `images`, without what the corpus says of the image."""
    workspace: Workspace = examiner.workspace
    image_id, flags = finding["image_id"], list(finding["flags"])
    if not has_extension_of(path, finding["format"]):
        flags.append("wrong_extension")
    face_path = path
    if not is_utf8(path):
        # No table can hold the name, so the stages read a copy under another one.
        flags.append("name_not_utf8")
        path = escape_name(path)
    if finding["face_sha256"] is not None:
        face_path = workspace.relative(examiner.face_path(image_id))
    elif "name_not_utf8" in flags:
        face_path = workspace.relative(examiner.copy(image_id, Path(found), finding["format"]))
    return {
        **_NO_IMAGE,
        **{name: finding[name] for name in finding if name in _NO_IMAGE},
        "partition": examiner.partition,
        "path": path,
        "face_path": face_path,
        "raw_name": escape_name(found.rpartition("/")[2]),
        "flags": flags,
    }


def write_quarantine(
    store: CorpusStore, workspace: Workspace, partition: str, base: str, csv: Path, fates: Fates
) -> Path:
    """Write the table `quarantine`, and the same for people; return its file."""
    columns = "image_id, reason, detail, num_bytes, duplicate_of"
    insert = "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)"
    for rows in store.by_name(columns, "reason IS NOT NULL"):
        store.run_many(
            insert, ((escape_name(f"{base}/{os.fsdecode(name)}"), *row) for name, *row in rows)
        )
    for rows in store.slices("SELECT path, reason, detail FROM absent"):
        store.run_many(
            insert,
            ((escape_name(f"{base}/{at}"), None, *why, None, None) for at, *why in rows),
        )
    num_rows = store.value("SELECT COUNT(*) FROM quarantine")
    fates.num_inputs = fates.num_images + num_rows
    num_unsettled = store.value("SELECT COUNT(*) FROM files WHERE reason IS NULL AND taken IS NULL")
    assert not num_unsettled, "an input is in neither table"
    count = "SELECT reason, COUNT(*) FROM quarantine GROUP BY reason ORDER BY reason"
    fates.reasons = dict(store.run(count).fetchall())
    path = table_path(workspace, QUARANTINE, partition)
    with (
        open_table(path, QUARANTINE) as writer,
        atomic_path(csv) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as text,
    ):
        _write_rows(store, partition, writer.write, text.write)
    return path if num_rows else _write_empty(workspace, QUARANTINE, partition)


def _write_rows(
    store: CorpusStore,
    partition: str,
    write: Callable[..., object],
    write_text: Callable[[str], object],
) -> None:
    is_first = True
    for rows in store.slices("SELECT * FROM quarantine ORDER BY path", size=_GROUP_ROWS):
        frame = quarantine_frame(
            [
                quarantine_row(path, partition, reason, detail, raw and raw.hex(), *rest)
                for path, raw, reason, detail, *rest in rows
            ]
        )
        write(frame)
        write_text(for_spreadsheets(frame, is_first))
        is_first = False
    if is_first:
        write_text(for_spreadsheets(quarantine_frame([])))


def count_alike(store: CorpusStore) -> int:
    """Return how many people of the images that are taken differ from another in capitals alone."""
    store.run("CREATE TEMP TABLE spelt (folded TEXT, name TEXT, PRIMARY KEY (folded, name))")
    theirs = "SELECT DISTINCT l.subject FROM files f CROSS JOIN listed l ON l.number = f.row "
    for rows in store.slices(f"{theirs} WHERE f.taken AND l.subject IS NOT NULL"):
        people = [(name.casefold(), name) for (name,) in rows]
        store.run_many("INSERT INTO spelt VALUES (?, ?)", people)
    return store.value("SELECT COUNT(*) - COUNT(DISTINCT folded) FROM spelt")
