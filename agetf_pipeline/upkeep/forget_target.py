"""Whom or what to forget: from what a person names to contents, files and people."""

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace, caf_partition, shard_of
from agetf_pipeline.data.caf import (
    MANIFEST_NAME,
    ManifestRow,
    match_manifest,
    read_manifest,
    subject_of,
)
from agetf_pipeline.data.corpora import caf_folder, ffhq_folder, list_shard_folders
from agetf_pipeline.data.forgotten import EVERY_SHARD, Entry, Forgotten
from agetf_pipeline.data.listing import escape_name, list_files
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.data.tables import read_table
from agetf_pipeline.upkeep.forget_match import Asked, Target, unescape_name

_ID = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{12,64}")


def find_target(
    config: PipelineConfig,
    workspace: Workspace,
    what: Iterable[str],
    register: Forgotten,
    subjects: bool = False,
    shards: Collection[str] = (),
    delete_originals: bool = False,
) -> Target:
    """Find what a person named, and what of interrupted requests is left.

    Args:
        config: Says where the corpora lie.
        workspace: The workspace.
        what: Image ids (12 digits and more), paths of photographs, or names of subjects.
        register: Its unfinished requests are gone on with.
        subjects: Whether `what` are names of subjects.
        shards: Shards in which subjects are meant; none: all there are, and all to come.
        delete_originals: Whether originals of `what` go; interrupted requests say it themselves.

    Raises:
        DataError: Something is unknown or ambiguous. Nothing has changed then.
    """
    images = read_table(workspace, IMAGES).select(IMAGES.schema.names)
    quarantine = read_table(workspace, QUARANTINE)
    asked = _Found()
    scopes = [caf_partition(shard) for shard in shards] or [EVERY_SHARD]
    for word in what:
        if subjects:
            _add_subject(config, workspace, word, scopes, images, asked)
        else:
            _add_image(config, workspace, word, images, quarantine, asked)
    waiting = [entry for entry in register.entries if entry.done_at is None]
    found = replace(
        asked, image_ids=set(asked.image_ids), paths=set(asked.paths), subjects=set(asked.subjects)
    )
    deletable = set(asked.image_ids) if delete_originals else set()
    for entry in waiting:
        found.image_ids |= set(entry.image_ids)
        deletable |= set(entry.image_ids) if entry.deletes_originals else set()
        _add_people_of(config, workspace, register, entry, images, found)
    rows, refused = _rows_of(images, quarantine, found)
    asked_rows, asked_refused = _rows_of(images, quarantine, asked)
    known = pl.concat([t.select("image_id", "num_bytes").drop_nulls() for t in (rows, refused)])
    return Target(
        frozenset(found.image_ids),
        frozenset({*found.paths, *rows["path"], *refused["path"]}),
        frozenset(found.subjects),
        rows,
        frozenset({*rows["partition"], *refused["partition"]}),
        tuple(found.messages),
        sizes=dict(known.iter_rows()) | found.sizes,
        deletable=frozenset(deletable),
        asked=Asked(
            frozenset(asked.image_ids),
            frozenset({*asked.paths, *asked_rows["path"], *asked_refused["path"]}),
            frozenset(asked.subjects),
        ),
        unread=tuple(sorted(found.unread.items())),
    )


def file_of(workspace: Workspace, path: str) -> Path:
    """Return the file that a path of a table names, escaped names included."""
    plain = workspace.resolve(path)
    return plain if plain.exists() else workspace.resolve(unescape_name(path))


@dataclass
class _Found:
    image_ids: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    subjects: set[tuple[str, str]] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


def _rows_of(
    images: pl.DataFrame, quarantine: pl.DataFrame, found: _Found
) -> tuple[pl.DataFrame, pl.DataFrame]:
    ids, paths = list(found.image_ids), list(found.paths)
    its = pl.col("image_id").is_in(ids)
    return images.filter(its), quarantine.filter(its | pl.col("path").is_in(paths))


def _add_image(
    config: PipelineConfig, workspace: Workspace, word: str, images: pl.DataFrame,
    quarantine: pl.DataFrame, found: _Found,
) -> None:  # fmt: skip
    known = {*images["image_id"], *quarantine["image_id"].drop_nulls()}
    if _PREFIX.fullmatch(word):
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
    by_path = _ids_at(workspace, word, images, quarantine)
    file = _file_meant(workspace, word, by_path)
    if not by_path and file is None:
        raise DataError(
            f"Expected an image_id, or the path of a photograph; found {word!r}, which is no path "
            "of the tables and no file. For a person give --subject."
        )
    found.image_ids |= by_path
    if file is None:
        return
    if file.stem in known and file.resolve().is_relative_to(workspace.processed.resolve()):
        found.image_ids.add(file.stem)  # a face crop, or an enhanced copy
        return
    image_id = hash_file(file)
    found.image_ids.add(image_id)
    found.sizes[image_id] = file.stat().st_size
    corpora = (ffhq_folder(config, workspace), caf_folder(config, workspace))
    if any(file.absolute().is_relative_to(folder.absolute()) for folder in corpora):
        found.paths.add(escape_name(_name_of(workspace, file)))
    if by_path and image_id not in by_path:
        found.messages.append(
            f"{word} holds another picture than when it was read: what it was then "
            f"({', '.join(sorted(by_path))}) and what it is now ({image_id}) are both forgotten."
        )
    elif image_id not in known:
        found.messages.append(
            f"{word} is in no table: its content is recorded, so that it is not taken in."
        )


def _ids_at(
    workspace: Workspace, word: str, images: pl.DataFrame, quarantine: pl.DataFrame
) -> set[str]:
    """Return what the tables know to have lain at a path that a person gave."""
    path = Path(word)
    names = {word, workspace.relative(path), workspace.relative(workspace.resolve(word))}
    names |= {_name_of(workspace, path), _name_of(workspace, workspace.resolve(word))}
    names |= {escape_name(name) for name in names}
    return {
        i for table in (images, quarantine)
        for i in table.filter(pl.col("path").is_in(list(names)))["image_id"].drop_nulls()
    }  # fmt: skip


def _name_of(workspace: Workspace, path: Path) -> str:
    """Return a path as tables name it, links on the way kept as they are."""
    absolute, root = Path(os.path.abspath(path)), Path(os.path.abspath(workspace.root))  # noqa: PTH100
    inside = absolute.is_relative_to(root)
    return (absolute.relative_to(root) if inside else absolute).as_posix()


def _file_meant(workspace: Workspace, word: str, by_path: set[str]) -> Path | None:
    """Return the file of a path, in the workspace or from here.

    Raises:
        DataError: It names one thing in the workspace, and another from here.
    """
    here, there = Path(word), workspace.resolve(word)
    if not here.is_file() or here.resolve() == there.resolve():
        return there if there.is_file() else None
    inside = {hash_file(there)} if there.is_file() else by_path
    if not there.is_file() and here.resolve().is_relative_to(workspace.root.resolve()):
        return here
    if inside and not here.is_absolute() and hash_file(here) not in inside:
        raise DataError(
            f"Expected a path that names one photograph; found two: {here.absolute()} and "
            f"{there.absolute()}, with different contents. Give the whole path of the one."
        )
    return here if here.is_absolute() or not there.is_file() else there


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
        for path, image_id, num_bytes in _listed_files(config, workspace, shard, name, found):
            paths.add(path)
            if image_id:
                ids.add(image_id)
                found.sizes[image_id] = num_bytes
    if not ids and not paths:
        unread = f" Not looked at: {', '.join(sorted(found.unread))}." if found.unread else ""
        raise DataError(
            f"Expected a subject {name!r} in the manifests of {', '.join(wanted) or 'no shard'} or "
            f"in the tables; found none. Names are compared letter by letter.{unread}"
        )
    found.image_ids |= ids
    found.paths |= paths
    found.subjects |= {(name, scope) for scope in scopes}


def _manifest(
    config: PipelineConfig, workspace: Workspace, shard: str, found: _Found
) -> list[ManifestRow]:
    """Return the rows of a shard's manifest; one that cannot be read is noted, and has none."""
    folder = caf_folder(config, workspace) / shard
    if not (folder / MANIFEST_NAME).is_file():
        return []
    try:
        return read_manifest(folder)
    except DataError as error:
        found.unread[workspace.relative(folder / MANIFEST_NAME)] = str(error)
        return []


def _listed_files(
    config: PipelineConfig, workspace: Workspace, shard: str, name: str, found: _Found
) -> list[tuple[str, str | None, int]]:
    """Return path, content and size of each file that a shard's manifest says is of a person."""
    rows = [r for r in _manifest(config, workspace, shard, found) if r.subject == name]
    if not rows:
        return []
    folder = caf_folder(config, workspace) / shard
    files = list_files(folder, (MANIFEST_NAME,), config.ingest.caf.follow_links)
    listing = match_manifest(rows, files)
    base, by_name = workspace.relative(folder), {file.relative: file for file in files}
    listed: list[tuple[str, str | None, int]] = []
    for relative in listing.rows:
        its = by_name[relative]
        readable = its.reason is None and os.access(its.path, os.R_OK)
        image_id = hash_file(its.path) if readable else None
        listed.append((escape_name(f"{base}/{relative}"), image_id, its.num_bytes or 0))
    return listed + [(escape_name(f"{base}/{path}"), None, 0) for path, _, _ in listing.rejected]


def _people(
    config: PipelineConfig, workspace: Workspace, images: pl.DataFrame, found: _Found
) -> set[tuple[str, str]]:
    """Return everybody whom the tables and manifests name, with the partitions they are in."""
    people = set(images.select("subject", "partition").drop_nulls().iter_rows())
    folder = caf_folder(config, workspace)
    for shard in list_shard_folders(config, workspace)[0] if folder.is_dir() else ():
        rows = _manifest(config, workspace, shard, found)
        people |= {(row.subject, caf_partition(shard)) for row in rows if row.subject}
    return people


def _add_people_of(
    config: PipelineConfig, workspace: Workspace, register: Forgotten, entry: Entry,
    images: pl.DataFrame, found: _Found,
) -> None:  # fmt: skip
    """Name the people of an interrupted request: the register has their hashes alone.

    Their files are looked for again, too, since one that was never ingested is in no table.
    """
    hashes = set(entry.subjects)
    for subject, partition in _people(config, workspace, images, found) if hashes else ():
        scopes = [
            scope for scope in (EVERY_SHARD, partition)
            if register.subject_hash(subject, scope) in hashes
        ]  # fmt: skip
        found.subjects |= {(subject, scope) for scope in scopes}
        if scopes:
            shard = shard_of(partition)
            for path, image_id, num_bytes in _listed_files(
                config, workspace, shard, subject, found
            ):
                if image_id in entry.image_ids:
                    found.paths.add(path)
                    found.sizes[str(image_id)] = num_bytes
