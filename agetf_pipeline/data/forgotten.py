"""The register of what was forgotten: a durable file that keeps people's images from coming back.

It names nobody. Contents are hashes of bytes (`image_id`); names of people and of files are hashed
together with a random key of the workspace, so that a list of likely names does not tell who is in
it. It lies beside the data and not among the state, which may be deleted: without it, what was
forgotten is taken in again from where it still lies.
"""

import hashlib
import hmac
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.hashing import canonical_json, hash_bytes
from agetf_pipeline.core.workspace import CAF_PREFIX, Workspace
from agetf_pipeline.data.listing import escape_name

EVERY_SHARD = CAF_PREFIX.rstrip("/")
"""Scope of a subject that is forgotten in all shards, those of tomorrow included."""
DETAIL = "Forgotten on request: docs/forgetting.md. It is not read, and no stage sees it."
"""All that a row of quarantine says of it."""

_VERSION = 1
_KEY_BYTES = 32


@dataclass(frozen=True)
class Entry:
    """One request to forget.

    Attributes:
        image_ids: sha256 of each content that was forgotten.
        subjects: Keyed hashes of people, with the shards that they were forgotten in.
        paths: Keyed hashes of the files that lay in a corpus, as its manifest may list them.
        deletes_originals: Whether originals below `data/raw` were to go, too.
        begun_at: When it was asked for, UTC.
        done_at: When everything had gone; None where it was interrupted.
        num_rows: Rows of tables and lists that went.
        num_files: Files that went.
    """

    image_ids: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    deletes_originals: bool = False
    begun_at: str = ""
    done_at: str | None = None
    num_rows: int = 0
    num_files: int = 0


@dataclass(frozen=True)
class Forgotten:
    """The register as read: who and what must not come back."""

    key: str = ""
    entries: tuple[Entry, ...] = ()

    @cached_property
    def image_ids(self) -> frozenset[str]:
        """Contents that are never taken in."""
        return frozenset(i for entry in self.entries for i in entry.image_ids)

    @cached_property
    def digest(self) -> str:
        """Hash of what must not come back; empty where nothing was ever forgotten."""
        if not self.entries:
            return ""
        what = sorted(
            {i for e in self.entries for i in (*e.image_ids, *e.subjects, *e.paths)},
        )
        return hash_bytes(canonical_json(what).encode())

    def has_subject(self, subject: str | None, partition: str) -> bool:
        """Whether a person was forgotten, in this partition or in every shard."""
        if subject is None or not self._subjects:
            return False
        return any(
            self.subject_hash(subject, scope) in self._subjects
            for scope in (EVERY_SHARD, partition)
        )

    def has_path(self, base: str, listed: str) -> bool:
        """Whether a file that a list names, but that is not there, was forgotten.

        Args:
            base: The corpus folder as tables name it.
            listed: The path inside it, in any spelling that a manifest may use.
        """
        if not self._paths:
            return False
        plain = listed.removeprefix("./")
        spellings = {listed, plain, plain.replace("\\", "/")}
        return any(
            hashed in self._paths for s in spellings for hashed in self.path_hashes(f"{base}/{s}")
        )

    def subject_hash(self, subject: str, scope: str) -> str:
        """Return what the register keeps of a person in a scope: `caf`, or `caf/<shard>`."""
        return self._keyed(f"subject\0{scope}\0{subject}")

    def path_hashes(self, path: str) -> set[str]:
        """Return what the register keeps of a path: as it stands, and in one spelling of accents.

        The second because macOS and others write the same name with other characters.
        """
        composed = escape_name(unicodedata.normalize("NFC", path))
        return {self._keyed(f"path\0{spelling}") for spelling in (path, composed)}

    def _keyed(self, text: str) -> str:
        data = text.encode("utf-8", "surrogateescape")
        return hmac.new(bytes.fromhex(self.key), data, hashlib.sha256).hexdigest()

    @cached_property
    def _subjects(self) -> frozenset[str]:
        return frozenset(s for entry in self.entries for s in entry.subjects)

    @cached_property
    def _paths(self) -> frozenset[str]:
        return frozenset(p for entry in self.entries for p in entry.paths)


def read_forgotten(workspace: Workspace) -> Forgotten:
    """Read the register; an empty one where nobody was ever forgotten.

    Raises:
        DataError: The file is damaged. Nothing may be taken in without knowing what it said.
    """
    path = workspace.forgotten
    try:
        stored: dict[str, Any] = read_json(path)
        if stored["version"] != _VERSION or len(bytes.fromhex(stored["key"])) != _KEY_BYTES:
            raise ValueError("another version, or no key")
        return Forgotten(stored["key"], tuple(_entry(item) for item in stored["entries"]))
    except FileNotFoundError:
        return Forgotten()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"Expected the register of what was forgotten at {path}; found: {error!r}. Restore it "
            "from a backup: without it, forgotten people come back. Nothing was read."
        ) from error


def with_key(register: Forgotten) -> Forgotten:
    """Return the register with a key, drawn where it has none yet."""
    return register if register.key else replace(register, key=secrets.token_hex(_KEY_BYTES))


def write_forgotten(workspace: Workspace, register: Forgotten) -> None:
    """Write the register, whole or not at all; only under all locks that stages hold."""
    entries = [asdict(entry) for entry in register.entries]
    stored = {"version": _VERSION, "key": register.key, "entries": entries}
    write_json(workspace.forgotten, stored)


def begin(workspace: Workspace, entry: Entry, register: Forgotten) -> Forgotten:
    """Record that something is about to be forgotten, before anything of it goes.

    From here on no stage takes it in, and whoever is killed meanwhile can go on.
    """
    entry = replace(entry, begun_at=_now(), done_at=None)
    register = replace(with_key(register), entries=(*register.entries, entry))
    write_forgotten(workspace, register)
    return register


def finish(workspace: Workspace, register: Forgotten, num_rows: int, num_files: int) -> Forgotten:
    """Record that everything that was begun is done.

    Args:
        workspace: The workspace.
        register: As `begin` or an interrupted run left it.
        num_rows: Rows that went in this run, counted to the last entry that was open.
        num_files: Files, likewise.
    """
    entries = list(register.entries)
    open_places = [place for place, entry in enumerate(entries) if entry.done_at is None]
    for place in open_places:
        entries[place] = replace(entries[place], done_at=_now())
    if open_places:
        last = entries[open_places[-1]]
        entries[open_places[-1]] = replace(last, num_rows=num_rows, num_files=num_files)
    register = replace(register, entries=tuple(entries))
    write_forgotten(workspace, register)
    return register


def unfinished(register: Forgotten) -> list[Entry]:
    """Return the requests that were interrupted."""
    return [entry for entry in register.entries if entry.done_at is None]


def hashes_of(register: Forgotten, paths: Iterable[str]) -> tuple[str, ...]:
    """Return the keyed hashes of paths, sorted."""
    return tuple(sorted({hashed for path in paths for hashed in register.path_hashes(path)}))


def _entry(item: dict[str, Any]) -> Entry:
    lists = {name: tuple(item[name]) for name in ("image_ids", "subjects", "paths")}
    return Entry(**{**item, **lists})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
