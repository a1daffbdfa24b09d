"""A partition's own list, manifest or labels, laid over the files of a store."""

import json
import os
from operator import attrgetter
from pathlib import Path
from typing import Any

from agetf_pipeline.data.caf import (
    MANIFEST_NAME,
    Listing,
    ManifestRow,
    explain_conflict,
    explain_repeated,
    facts_of,
    iter_manifest,
    locate,
    spellings_of,
)
from agetf_pipeline.data.corpus_store import SLICE, CorpusStore
from agetf_pipeline.data.ffhq_aging import (
    LABEL_COLUMNS,
    LABELS_NAME,
    Label,
    describe_coverage,
    iter_labels,
    listed_twice,
)

_NOT_LISTED = f"Not in {MANIFEST_NAME}: add a row (subject and age may be empty), or remove it."
_PRINTABLE = frozenset(range(0x20, 0x7F)) - {0x5C}


def apply_manifest(store: CorpusStore, folder: Path) -> None:
    """Lay the manifest of a shard over its files; see `agetf_pipeline.data.caf.match_manifest`.

    Raises:
        DataError: The manifest cannot be used.
    """
    names = _StoredNames(store)
    num_repeated = 0
    # Exact names first, so that no other spelling takes a file that is listed by its own name.
    for number, row in enumerate(iter_manifest(folder)):
        exact = row.listed in names
        store.run(
            "INSERT INTO listed VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, row.listed, row.subject, row.true_age_years, row.age_group, row.bad_age,
             None if exact else 1),
        )  # fmt: skip
        if exact:
            num_repeated += _place(store, number, row, names)
    number = -1
    while rows := store.run(
        f"SELECT number, {_ROW} FROM listed WHERE waits AND number > ? ORDER BY number LIMIT ?",
        (number, SLICE),
    ).fetchall():
        for number, *values in rows:
            num_repeated += _place(store, number, ManifestRow(*values), names)
    if num_repeated:
        store.messages.append(explain_repeated(num_repeated))
    _refuse_by_manifest(store)


_ROW = "path, subject, age, age_group, bad_age"


def _place(store: CorpusStore, number: int, row: ManifestRow, names: "_StoredNames") -> bool:
    """Note which file a row is about, or that there is none; whether it repeats another row."""
    name, why = locate(row.listed, names)
    if name is None:
        store.run(
            "INSERT INTO absent VALUES (?, ?, ?, 1) "
            "ON CONFLICT (path) DO UPDATE SET num_rows = num_rows + 1",
            (row.listed, *why),
        )
        return False
    raw = os.fsencode(name)
    if name != row.listed:
        store.run("UPDATE files SET other_name = 1 WHERE name = ?", (raw,))
    first = store.value("SELECT row FROM files WHERE name = ?", (raw,))
    if first is None:
        store.run("UPDATE files SET row = ? WHERE name = ?", (number, raw))
        return False
    known = ManifestRow(
        *store.run(f"SELECT {_ROW} FROM listed WHERE number = ?", (first,)).fetchone()
    )
    if facts_of(known) != facts_of(row):
        sentence = explain_conflict(known, row)
        store.run("UPDATE files SET conflict = ? WHERE name = ?", (sentence, raw))
    return True


def _refuse_by_manifest(store: CorpusStore) -> None:
    store.run(
        "UPDATE files SET reason = 'not_listed', detail = ? WHERE row IS NULL AND reason IS NULL",
        (_NOT_LISTED,),
    )
    store.run(
        "UPDATE files SET reason = 'conflicting_rows', detail = conflict "
        "WHERE conflict IS NOT NULL AND reason IS NULL"
    )
    bad = "row IN (SELECT number FROM listed WHERE bad_age IS NOT NULL) AND reason IS NULL"
    for rows in store.by_name("(SELECT bad_age FROM listed WHERE number = row)", bad):
        store.refuse(("bad_age", _explain_age(bad_age), name) for name, bad_age in rows)
    num_listed, num_unknown = store.run(
        "SELECT COUNT(*), COALESCE(SUM(age IS NULL), 0) FROM files "
        "CROSS JOIN listed ON listed.number = files.row"
    ).fetchone()
    if num_unknown:
        store.messages.append(
            f"Images without an age in the manifest: {num_unknown} of {num_listed}. Their "
            "ages are estimated, and they calibrate nothing."
        )


def refusals_of(listing: Listing) -> dict[str, tuple[str, str]]:
    """Return the files that a manifest in memory turns away, to the reason and a sentence."""
    refused: dict[str, tuple[str, str]] = {}
    refused.update((name, ("not_listed", _NOT_LISTED)) for name in listing.unlisted)
    for name, sentence in listing.conflicting.items():
        refused.setdefault(name, ("conflicting_rows", sentence))
    for name, row in listing.rows.items():
        if row.bad_age is not None:
            refused.setdefault(name, ("bad_age", _explain_age(row.bad_age)))
    return refused


def _explain_age(bad_age: str) -> str:
    return (
        f"The manifest says age {bad_age!r}; expected years from 0 to 120, or nothing "
        "where the age is not known."
    )


class _StoredNames:
    """The names of a store's files, in every spelling."""

    def __init__(self, store: CorpusStore) -> None:
        self._store = store
        self._is_filled = False

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._has(os.fsencode(name))

    def spelled(self, spelling: str) -> str | None:
        """Return the one file that may be called so, None without one or of several."""
        if not self._is_filled:
            self._fill()
        raw = os.fsencode(spelling)
        owners = self._store.run(
            "SELECT name FROM spellings WHERE spelling = ? LIMIT 2", (raw,)
        ).fetchall()
        if _PRINTABLE.issuperset(raw) and self._has(raw):  # it is its own only spelling
            owners.append((raw,))
        return os.fsdecode(owners[0][0]) if len(owners) == 1 else None

    def _has(self, raw: bytes) -> bool:
        return self._store.value("SELECT 1 FROM files WHERE name = ?", (raw,)) is not None

    def _fill(self) -> None:
        for rows in self._store.by_name("1", "1"):
            self._store.run_many(
                "INSERT INTO spellings VALUES (?, ?)",
                (
                    (os.fsencode(spelling), raw)
                    for raw, _ in rows
                    if not _PRINTABLE.issuperset(raw)
                    for spelling in spellings_of(os.fsdecode(raw))
                ),
            )
        self._is_filled = True


_LABEL_FIELDS = tuple(name for name in LABEL_COLUMNS)
_values_of = attrgetter(*_LABEL_FIELDS)


def apply_labels(store: CorpusStore, folder: Path) -> None:
    """Read the crowd's labels into a store.

    Raises:
        DataError: They cannot be used.
    """
    path = folder / LABELS_NAME
    if path.is_file():
        for line, label in iter_labels(path):
            number = label.image_number
            first = store.value("SELECT line FROM labels WHERE number = ?", (number,))
            if first is not None:
                raise listed_twice(path, number, first, line)
            stored = json.dumps(_values_of(label))
            store.run("INSERT INTO labels VALUES (?, ?, ?)", (number, line, stored))
    elif store.value("SELECT 1 FROM files LIMIT 1"):
        store.messages.append(
            f"There is no {LABELS_NAME} beside the images: they go on without the crowd's labels."
        )
    else:
        store.messages.append(
            f"There are no FFHQ-Aging images in {folder}: the CAF shards go on alone."
        )


def label_of(stored: str) -> Label:
    """Return a label as `apply_labels` stored it."""
    values: list[Any] = json.loads(stored)
    return Label(**dict(zip(_LABEL_FIELDS, values, strict=True)))


def explain_labels(store: CorpusStore, has_labels: bool) -> list[str]:
    """Say how labels and images fit together, once the images that are taken are known."""
    if not has_labels:
        return []
    num_labels = store.value("SELECT COUNT(*) FROM labels")
    num_met = store.value(
        "SELECT COUNT(*) FROM numbers WHERE number IN (SELECT number FROM labels)"
    )
    unlabelled = "SELECT COALESCE(SUM(num_images), 0) FROM numbers WHERE number {} IN "
    unlabelled += "(SELECT number FROM labels)"
    num_unlabelled = store.value(f"{unlabelled.format('NOT')} AND number >= 0")
    num_unnamed = store.value("SELECT num_images FROM numbers WHERE number = -1") or 0
    messages = describe_coverage(num_labels, num_labels - num_met, num_unlabelled, num_unnamed)
    if shared := store.value(f"{unlabelled.format('')} AND num_images > 1"):
        messages.append(
            f"Images that share their number with another picture: {shared}. Which of them a row "
            f"of {LABELS_NAME} means cannot be told: they go on without labels. Keep one a number."
        )
    return messages
