"""Whom or what to forget: from what a person names to contents, files and people."""

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace, caf_partition, shard_of
from agetf_pipeline.data.caf import MANIFEST_NAME, match_manifest, read_manifest, subject_of
from agetf_pipeline.data.corpora import caf_folder, list_shard_folders
from agetf_pipeline.data.forgotten import EVERY_SHARD, Entry, Forgotten
from agetf_pipeline.data.listing import escape_name, list_files
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.data.tables import read_table

_ID = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{12,64}")
_TOKEN = re.compile(r"(?<![0-9a-f])[0-9a-f]{12,64}(?![0-9a-f])")
_MIN_NAME = 8
"""Shorter names of people would be found in words that have nothing to do with them."""


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
    """

    image_ids: frozenset[str]
    paths: frozenset[str]
    subjects: frozenset[tuple[str, str]]
    rows: pl.DataFrame
    partitions: frozenset[str]
    messages: tuple[str, ...] = ()

    @cached_property
    def names(self) -> frozenset[str]:
        """The people as cells of tables name them."""
        plain = {subject for subject, _ in self.subjects}
        return frozenset(plain | {f"caf:{subject}" for subject in plain})

    @cached_property
    def literals(self) -> list[str]:
        """Contents and files as they stand in a longer text."""
        return sorted(self.image_ids | self.paths | {escape_name(path) for path in self.paths})

    @cached_property
    def _in_text(self) -> re.Pattern[str] | None:
        words = {*self.paths, *map(escape_name, self.paths)}
        words |= {name for name, _ in self.subjects if len(name) >= _MIN_NAME}
        if not words:
            return None
        some = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        return re.compile(rf"(?<![\w-])(?:{some})(?![\w-])")

    def is_in(self, text: str) -> bool:
        """Whether a text names any of it: a hash (or 12 and more digits of it), file or person."""
        for token in _TOKEN.findall(text):
            if token in self.image_ids or any(i.startswith(token) for i in self.image_ids):
                return True
        return self._in_text is not None and self._in_text.search(text) is not None


def find_target(
    config: PipelineConfig,
    workspace: Workspace,
    what: Iterable[str],
    register: Forgotten,
    subjects: bool = False,
    shards: Collection[str] = (),
) -> Target:
    """Find what a person named, and what of interrupted requests is left.

    Args:
        config: Says where the corpora lie.
        workspace: The workspace.
        what: Image ids (12 digits and more), paths of photographs, or names of subjects.
        register: Its unfinished requests are gone on with.
        subjects: Whether `what` are names of subjects.
        shards: Shards in which subjects are meant; none: all there are, and all to come.

    Raises:
        DataError: Something is unknown or ambiguous. Nothing has changed then.
    """
    images = read_table(workspace, IMAGES).select(IMAGES.schema.names)
    quarantine = read_table(workspace, QUARANTINE)
    found = _Found(set(), set(), set(), [])
    scopes = [caf_partition(shard) for shard in shards] or [EVERY_SHARD]
    for word in what:
        if subjects:
            _add_subject(config, workspace, word, scopes, images, found)
        else:
            _add_image(workspace, word, images, quarantine, found)
    for entry in register.entries:
        if entry.done_at is None:
            found.image_ids |= set(entry.image_ids)
            _add_people_of(register, entry, _people(config, workspace, images), found)
    rows = images.filter(pl.col("image_id").is_in(list(found.image_ids)))
    refused = quarantine.filter(
        pl.col("image_id").is_in(list(found.image_ids)) | pl.col("path").is_in(list(found.paths))
    )
    paths = {*found.paths, *rows["path"], *refused["path"]}
    partitions = {*rows["partition"], *refused["partition"]}
    return Target(
        frozenset(found.image_ids), frozenset(paths), frozenset(found.subjects), rows,
        frozenset(partitions), tuple(found.messages),
    )  # fmt: skip


def file_of(workspace: Workspace, path: str) -> Path:
    """Return the file that a path of a table names, escaped names included."""
    plain = workspace.resolve(path)
    if plain.exists() or "\\x" not in path:
        return plain
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), path.encode())
    return workspace.resolve(os.fsdecode(raw))


@dataclass
class _Found:
    image_ids: set[str]
    paths: set[str]
    subjects: set[tuple[str, str]]
    messages: list[str]


def _add_image(
    workspace: Workspace, word: str, images: pl.DataFrame, quarantine: pl.DataFrame, found: _Found
) -> None:
    if _PREFIX.fullmatch(word):
        known = {*images["image_id"], *quarantine["image_id"].drop_nulls()}
        matching = sorted(i for i in known if i.startswith(word))
        if len(matching) > 1:
            raise DataError(
                f"Expected digits that begin one image_id; {word} begins {len(matching)}: "
                f"{', '.join(matching[:3])}... Give more digits."
            )
        if not matching and not _ID.fullmatch(word):
            raise DataError(
                f"Expected an image_id of the tables; found none that begins with {word}. Give all "
                "64 digits to record an image that is not here as never to be taken in."
            )
        if not matching:
            found.messages.append(
                f"{word} is in no table: recorded, so that it is not taken in should it ever come."
            )
        found.image_ids |= {*matching} or {word}
        return
    path = Path(word)
    names = {word, workspace.relative(path), workspace.relative(workspace.resolve(word))}
    names |= {escape_name(name) for name in names}
    by_path = {
        i for table in (images, quarantine)
        for i in table.filter(pl.col("path").is_in(list(names)))["image_id"].drop_nulls()
    }  # fmt: skip
    files = [file for file in (path, workspace.resolve(word)) if file.is_file()]
    if not by_path and files and files[0].stem in {*images["image_id"]}:
        by_path = {files[0].stem}  # a face crop, or an enhanced copy
    hashed = set() if not files or by_path else {hash_file(files[0])}
    if not by_path and not hashed:
        raise DataError(
            f"Expected an image_id, or the path of a photograph; found {word!r}, which is no path "
            "of the tables and no file. For a person give --subject."
        )
    if hashed and not hashed & {*images["image_id"], *quarantine["image_id"].drop_nulls()}:
        found.messages.append(
            f"{word} is in no table: its content is recorded, so that it is not taken in."
        )
    found.image_ids |= by_path | hashed


def _add_subject(
    config: PipelineConfig, workspace: Workspace, name: str, scopes: list[str],
    images: pl.DataFrame, found: _Found,
) -> None:  # fmt: skip
    name = subject_of(name) or name  # as ingest stores it
    rows = images.filter(pl.col("subject") == name)
    if scopes != [EVERY_SHARD]:
        rows = rows.filter(pl.col("partition").is_in(scopes))
    ids, paths = set(rows["image_id"]), set(rows["path"])
    folder = caf_folder(config, workspace)
    there = list_shard_folders(config, workspace)[0] if folder.is_dir() else []
    wanted = there if scopes == [EVERY_SHARD] else [shard_of(scope) for scope in scopes]
    for shard in wanted:
        for path, image_id in _listed_files(config, workspace, folder / shard, name):
            paths.add(path)
            ids |= {image_id} if image_id else set()
    if not ids and not paths:
        raise DataError(
            f"Expected a subject {name!r} in the manifests of {', '.join(wanted) or 'no shard'} or "
            "in the tables; found none. Names are compared letter by letter."
        )
    found.image_ids |= ids
    found.paths |= paths
    found.subjects |= {(name, scope) for scope in scopes}


def _listed_files(
    config: PipelineConfig, workspace: Workspace, folder: Path, name: str
) -> list[tuple[str, str | None]]:
    """Return path and content of each file that a shard's manifest says is of a person."""
    if not (folder / MANIFEST_NAME).is_file():
        return []
    rows = [row for row in read_manifest(folder) if row.subject == name]
    files = list_files(folder, (MANIFEST_NAME,), config.ingest.caf.follow_links)
    listing = match_manifest(rows, files)
    base, by_name = workspace.relative(folder), {found.relative: found for found in files}
    found: list[tuple[str, str | None]] = []
    for relative in listing.rows:
        its = by_name[relative]
        readable = its.reason is None and os.access(its.path, os.R_OK)
        found.append((escape_name(f"{base}/{relative}"), hash_file(its.path) if readable else None))
    found += [(escape_name(f"{base}/{listed}"), None) for listed, _, _ in listing.rejected]
    return found


def _people(
    config: PipelineConfig, workspace: Workspace, images: pl.DataFrame
) -> set[tuple[str, str]]:
    """Return everybody whom the tables and manifests name, with the partitions they are in."""
    people = set(images.select("subject", "partition").drop_nulls().iter_rows())
    folder = caf_folder(config, workspace)
    for shard in list_shard_folders(config, workspace)[0] if folder.is_dir() else ():
        if (folder / shard / MANIFEST_NAME).is_file():
            rows = read_manifest(folder / shard)
            people |= {(row.subject, caf_partition(shard)) for row in rows if row.subject}
    return people


def _add_people_of(
    register: Forgotten, entry: Entry, people: set[tuple[str, str]], found: _Found
) -> None:
    """Name the people of an interrupted request: the register has their hashes alone."""
    hashes = set(entry.subjects)
    found.subjects |= {
        (subject, scope)
        for subject, partition in (people if hashes else ())
        for scope in (EVERY_SHARD, partition)
        if register.subject_hash(subject, scope) in hashes
    }
