"""Cross-Age Face (CAF): shards of images of known people at known ages, each with a manifest.

A manifest is a CSV of `path,subject,age` and optionally `group`, one row an image, with paths
relative to the shard's folder. An empty age or subject is not known.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.data.csv_files import read_csv, refuse_spreadsheet_date
from agetf_pipeline.data.listing import Found, escape_name

MANIFEST_NAME = "manifest.csv"
MAX_AGE_YEARS = 120
# Direction marks and zero-width spaces; not the joiners, which some scripts need.
_UNSEEN = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_REQUIRED = ("path", "subject", "age")


@dataclass(frozen=True)
class ManifestRow:
    """One row: what the manifest says of one file.

    Attributes:
        listed: The path as listed.
        subject: The person; None where it is not known.
        true_age_years: 0-120; None where it is not known or not usable.
        age_group: A group of FFHQ-Aging; None where the manifest has none.
        bad_age: The age as listed, where it is not usable.
    """

    listed: str
    subject: str | None
    true_age_years: float | None
    age_group: str | None
    bad_age: str | None = None


@dataclass
class Listing:
    """A manifest laid over the files of its shard. Every row and every file is in one of these.

    Attributes:
        rows: Relative path of a file to its row.
        by_other_name: Files that were listed by another spelling of their name.
        unlisted: Files without a row.
        rejected: Rows without a usable file: (listed path, reason, detail).
        conflicting: Relative path of a file listed several times, differently, to the sentence.
        messages: What a person should know.
    """

    rows: dict[str, ManifestRow] = field(default_factory=dict)
    by_other_name: set[str] = field(default_factory=set)
    unlisted: list[str] = field(default_factory=list)
    rejected: list[tuple[str, str, str]] = field(default_factory=list)
    conflicting: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


def read_manifest(folder: Path) -> list[ManifestRow]:
    """Read the manifest of a shard.

    Raises:
        DataError: As `iter_manifest`.
    """
    return list(iter_manifest(folder))


def iter_manifest(folder: Path) -> Iterator[ManifestRow]:
    """Yield the rows of a shard's manifest.

    Raises:
        DataError: It is absent, not UTF-8, lacks columns, or holds groups that a spreadsheet
            turned into dates.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise DataError(
            f"Expected {path}, a CSV of path,subject,age, one row an image; found none. The names "
            "of CAF's files say nothing reliable about people and ages: write a manifest beside "
            "the images (subject and age may be empty where they are not known)."
        )
    for line, values in read_csv(path, _REQUIRED):
        if not values["path"]:
            raise DataError(
                f"Expected a path in line {line} of {path}; found none. Correct or remove the line."
            )
        group = values.get("group", "")
        if group not in AGE_GROUPS:
            refuse_spreadsheet_date(path, line, "group", group)
        age, bad_age = _parse_age(values["age"])
        yield ManifestRow(
            listed=values["path"],
            subject=subject_of(values["subject"]),
            true_age_years=age,
            age_group=group if group in AGE_GROUPS else None,
            bad_age=bad_age,
        )


def subject_of(text: str) -> str | None:
    """Return a person's name as it is compared and stored, None for none.

    Spellings that nobody can see apart are one: accents composed (NFC), runs of white space one
    space, marks of direction and zero width gone. Capitals stay as they are.
    """
    composed = unicodedata.normalize("NFC", _UNSEEN.sub("", text))
    return " ".join(composed.split()) or None


def match_manifest(rows: Iterable[ManifestRow], files: Iterable[Found]) -> Listing:
    """Lay a manifest over the files of its shard.

    A listed path is taken as it stands. Only where no such file is there, it is also looked for
    with Windows separators, in the other Unicode spelling of its accents (macOS writes them
    apart), and as the escaped name that the quarantine table prints for names that are not UTF-8.
    """
    listing = Listing()
    names = _HeldNames([found.relative for found in files])
    rows = list(rows)
    # Exact names first, so that no other spelling takes a file that is listed by its own name.
    ordered = [row for row in rows if row.listed in names]
    ordered += [row for row in rows if row.listed not in names]
    num_repeated = 0
    for row in ordered:
        name, why = locate(row.listed, names)
        if name is None:
            listing.rejected.append((row.listed, *why))
            continue
        if name != row.listed:
            listing.by_other_name.add(name)
        known = listing.rows.setdefault(name, row)
        if known is not row:
            num_repeated += 1
            if facts_of(known) != facts_of(row):
                listing.conflicting[name] = explain_conflict(known, row)
    listing.unlisted = sorted(names.all - set(listing.rows))
    if num_repeated:
        listing.messages.append(explain_repeated(num_repeated))
    return listing


class Names(Protocol):
    """The files of a shard, as `locate` asks for them."""

    def __contains__(self, name: object) -> bool:
        """Whether there is a file of exactly this name."""
        ...

    def spelled(self, spelling: str) -> str | None:
        """Return the one file that has this among its `spellings_of`; None without, or of two."""
        ...


def locate(listed: str, names: Names) -> tuple[str | None, tuple[str, str]]:
    """Return the file that a manifest means with a path; else None, with reason and detail."""
    problem = _unsafe(listed)
    if problem is not None:
        return None, ("outside_folder", problem)
    name = listed if listed in names else _find(listed, names)
    if name is None:
        detail = "Listed in the manifest, but there is no such file: add it or remove the row."
        return None, ("missing_file", detail)
    return name, ("", "")


def spellings_of(name: str) -> set[str]:
    """Return what a manifest may call a file besides its name: escaped, and composed (NFC)."""
    return {escape_name(name), unicodedata.normalize("NFC", name)}


def explain_repeated(count: int) -> str:
    """Return the sentence about rows that repeat a file of another row."""
    return (
        f"Rows of the manifest that repeat a file of another row: {count}. Rows that "
        "agree count once; files whose rows disagree are in quarantine."
    )


def explain_conflict(known: ManifestRow, row: ManifestRow) -> str:
    """Return the sentence about a file that is listed twice, with different `facts_of`."""
    return (
        f"Listed several times, as {facts_of(known)} and as {facts_of(row)} (subject, age, "
        "group): keep the right row."
    )


class _HeldNames:
    """The names of files that are in memory."""

    def __init__(self, names: list[str]) -> None:
        self.all = set(names)
        self._spellings: dict[str, str | None] = {}
        for name in names:
            for spelling in spellings_of(name):
                self._spellings[spelling] = None if spelling in self._spellings else name

    def __contains__(self, name: object) -> bool:
        return name in self.all

    def spelled(self, spelling: str) -> str | None:
        return self._spellings.get(spelling)


def _parse_age(text: str) -> tuple[float | None, str | None]:
    """Return (age, None), (None, None) for an empty field, or (None, the text) for a bad one."""
    if not text:
        return None, None
    try:
        age = float(text)
    except ValueError:
        return None, text
    usable = math.isfinite(age) and 0 <= age <= MAX_AGE_YEARS
    return (age, None) if usable else (None, text)


def facts_of(row: ManifestRow) -> tuple[str | None, float | str | None, str | None]:
    """Return what a row says of a file."""
    return row.subject, row.bad_age or row.true_age_years, row.age_group


def _unsafe(listed: str) -> str | None:
    path = PurePosixPath(listed.replace("\\", "/"))
    drive = len(listed) > 1 and listed[1] == ":"
    if path.is_absolute() or drive or ".." in path.parts or "\0" in listed:
        return "The path leads out of the shard: list files in the shard's folder, relative to it."
    return None


def _find(listed: str, names: Names) -> str | None:
    plain = listed.removeprefix("./")
    for spelling in (plain, plain.replace("\\", "/")):
        composed = unicodedata.normalize("NFC", spelling)
        found = names.spelled(spelling) or names.spelled(composed)
        if found is not None:
            return found
    return None
