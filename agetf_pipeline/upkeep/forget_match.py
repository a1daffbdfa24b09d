"""What is to go, and whether a text, a cell or a file names it.

One name is written in many ways: with accents composed or apart, as JSON, HTML and addresses escape
it, behind the apostrophe that keeps spreadsheet programs from running it. All of them are it.
"""

import html
import os
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from urllib.parse import unquote

import polars as pl

from agetf_pipeline.data.caf import subject_of
from agetf_pipeline.data.forgotten import EVERY_SHARD
from agetf_pipeline.data.listing import escape_name

PEOPLE = frozenset(
    {"subject", "identity", "person", "subjects", "identities", "persons", "people"},
)
"""Columns and fields that hold people, in any case."""
MIN_NAME = 8
"""Shorter names of people would be found in words that have nothing to do with them."""

_TOKEN = re.compile(r"(?<![0-9a-f])[0-9a-f]{12,64}(?![0-9a-f])")
_ID_IN_NAME = re.compile(r"(?=([0-9a-f]{64}))")
_ESCAPED = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_CAF = "caf:"


@dataclass(frozen=True)
class Asked:
    """What is asked for now, without what earlier requests left unfinished.

    Attributes:
        image_ids: Contents.
        paths: Their files.
        subjects: People, with their scopes.
    """

    image_ids: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()
    subjects: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Target:
    """What is to go.

    Attributes:
        image_ids: Contents.
        paths: Their files, as tables name them (not UTF-8: escaped).
        subjects: People, with the partitions they are forgotten in (`caf`: every shard).
        rows: The rows of table `images` among them.
        partitions: Partitions that hold or held any of them.
        messages: What a person should know of how they were found.
        sizes: Bytes of contents, where they are known.
        deletable: Contents whose originals go, by the request that named them.
        asked: The part of it that is asked for now.
        unread: Manifests that could not be looked at for people, each with the reason.
    """

    image_ids: frozenset[str]
    paths: frozenset[str]
    subjects: frozenset[tuple[str, str]]
    rows: pl.DataFrame
    partitions: frozenset[str]
    messages: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    deletable: frozenset[str] = frozenset()
    asked: Asked = Asked()
    unread: tuple[tuple[str, str], ...] = ()

    def may_be(self, num_bytes: int) -> bool | None:
        """Whether a file of this size may be one of the contents; None where it is not known."""
        if self.image_ids - self.sizes.keys():
            return None
        return num_bytes in self._sizes

    def is_person(self, text: str, partition: str | None) -> bool:
        """Whether a cell that holds a person names one of these, in a partition where they go."""
        for form in {text, text.removeprefix("'")}:
            name = subject_of(form.removeprefix(_CAF)) or ""
            scopes = self._scopes.get(name, set())
            if EVERY_SHARD in scopes or partition in scopes:
                return True
        return False

    def is_identity(self, text: str, partition: str | None) -> bool:
        """Whether a text anywhere is a person as the training manifest writes them."""
        return text.startswith(_CAF) and self.is_person(text, partition)

    def is_content(self, name: str) -> bool:
        """Whether a file's name holds the hash of one of the contents, whole."""
        return any(found in self.image_ids for found in _ID_IN_NAME.findall(name))

    def is_in(self, text: str) -> bool:
        """Whether a text names any of it: a hash (or 12 and more digits of it), file or person.

        People are looked for who go from every shard, and whose names are no common words.
        """
        if any(self._begins(token) for token in _TOKEN.findall(text)):
            return True
        pattern = self._in_text
        return pattern is not None and any(pattern.search(form) for form in _forms(text))

    def is_key(self, text: str) -> bool:
        """Whether the key of a record names it: names that no word of a program is, count too."""
        if self.is_in(text) or self.is_identity(text, None):
            return True
        return not text.isascii() and self.is_person(text, None)

    @cached_property
    def without_people(self) -> "Target":
        """The same, names of people left out: words in files of networks are no people."""
        return replace(self, subjects=frozenset())

    @cached_property
    def cells(self) -> list[str]:
        """The people as cells of tables name them."""
        names = {name for name, _ in self.subjects}
        plain = {form for name in names for form in _spellings(name)}
        return sorted(f"{mark}{name}" for name in plain for mark in ("", "'", _CAF))

    @cached_property
    def literals(self) -> list[str]:
        """Contents and files as they stand in a longer text."""
        return sorted(self.image_ids | self._path_words)

    @cached_property
    def hints(self) -> list[str]:
        """What stands in every text that names a content or a file, and in some others."""
        return sorted({image_id[:12] for image_id in self.image_ids} | self._path_words)

    def _begins(self, token: str) -> bool:
        ids = self._sorted_ids
        place = bisect_left(ids, token)
        return place < len(ids) and ids[place].startswith(token)

    @cached_property
    def _sorted_ids(self) -> list[str]:
        return sorted(self.image_ids)

    @cached_property
    def _sizes(self) -> frozenset[int]:
        return frozenset(self.sizes.values())

    @cached_property
    def _scopes(self) -> dict[str, set[str]]:
        scopes: dict[str, set[str]] = {}
        for name, scope in self.subjects:
            scopes.setdefault(name, set()).add(scope)
        return scopes

    @cached_property
    def _path_words(self) -> frozenset[str]:
        plain = {form for path in self.paths for form in (path, unescape_name(path))}
        words = {spelling for path in plain for spelling in _spellings(path)}
        return frozenset(words | {escape_name(path) for path in self.paths})

    @cached_property
    def _in_text(self) -> re.Pattern[str] | None:
        long = {name for name, scope in self.subjects if scope == EVERY_SHARD}
        names = {form for name in long if len(name) >= MIN_NAME for form in _spellings(name)}
        words = self._path_words | names
        if not words:
            return None
        some = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        return re.compile(rf"(?<![\w-])(?:{some})(?![\w-])")


def unescape_name(path: str) -> str:
    """Return a path that `escape_name` wrote as it was; others as they are."""
    if "\\x" not in path:
        return path
    # Before the backslash's own escape, none stands in what escape_name wrote.
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), os.fsencode(path))
    return os.fsdecode(raw)


def _spellings(text: str) -> Iterable[str]:
    """Return a text with its accents as they are, composed, and apart."""
    return {text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)}


def _forms(text: str) -> Iterable[str]:
    """Yield a text as it stands, and as HTML, JSON and addresses mean it."""
    yield text
    if "&" in text:
        yield html.unescape(text)
    if "\\" in text:
        yield _ESCAPED.sub(_unescaped, text).replace("\\\\", "\\").replace('\\"', '"')
    if "%" in text:
        yield unquote(text, errors="surrogateescape")


def _unescaped(found: re.Match[str]) -> str:
    units = (int(digits, 16) for digits in found[0].split("\\u")[1:])
    data = b"".join(unit.to_bytes(2, "little") for unit in units)
    return data.decode("utf-16-le", "surrogatepass")
