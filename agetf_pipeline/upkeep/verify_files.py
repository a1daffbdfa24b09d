"""Files of a workspace: what no row knows, what was left over, what cannot be read or written."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from agetf_pipeline.captions.versions import cache_folder
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.workspace import Workspace, caf_partition, is_shard_name, shard_of
from agetf_pipeline.data.forgotten import Forgotten
from agetf_pipeline.data.schemas import CAPTIONS, ENHANCED, IMAGES
from agetf_pipeline.data.streaming import SortedTable
from agetf_pipeline.data.tables import list_partitions
from agetf_pipeline.enhance.outputs import CONTACT_SHEET, is_output
from agetf_pipeline.upkeep.verify_forgotten import (
    forgotten_in,
    register_of,
    verify_forgotten_files,
)
from agetf_pipeline.upkeep.verify_reports import verify_reports
from agetf_pipeline.upkeep.verify_survey import READ_ERRORS, Survey, is_partition

TOPS = ("data", "models", "outputs", "stats")
"""The folders of a workspace; nothing else below its root is ours."""
_GIVEN = ("data/raw", "models/checkpoints")
"""Folders that people fill: links are theirs."""
_TEMPORARY = ".tmp-"


def verify_files(survey: Survey) -> None:
    """Check the files of the whole workspace, then what each partition's rows know of them."""
    register = register_of(survey)
    with Progress("verify files") as progress:
        for path, entry in walk(survey):
            progress.advance()
            _check_entry(survey, path, entry, register)
    known = set(list_partitions(survey.workspace, IMAGES))
    for partition in sorted(filter(survey.wants, known)):
        if not survey.is_at_work(partition):
            _find_orphans(survey, partition)
    if survey.partitions is None:
        _find_orphan_grids(survey)
        _find_stale_partitions(survey, known)
        verify_forgotten_files(survey)
    verify_reports(survey)


def walk(survey: Survey) -> Iterator[tuple[Path, os.DirEntry[str]]]:
    """Yield everything below the workspace's folders; what cannot be listed is a finding."""
    pending = [survey.workspace.root / top for top in TOPS]
    while pending:
        folder = pending.pop()
        if not folder.exists():
            continue
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            survey.add("files/unreadable", folder, "a folder that can be listed", _told(error))
            continue
        if not _may_write(folder) and not _is_given(survey, folder):
            survey.add("files/not_writable", folder, "the right to write", "none")
        for entry in entries:
            path = folder / entry.name
            yield path, entry
            if entry.is_dir(follow_symlinks=False) and not _is_leftover(entry.name):
                pending.append(path)


def _check_entry(survey: Survey, path: Path, entry: os.DirEntry[str], register: Forgotten) -> None:
    given = _is_given(survey, path)
    if _is_leftover(entry.name):
        survey.add("files/temporary", path, "whole files alone", entry.name)
        return
    image_id = forgotten_in(entry.name, register.image_ids)
    if image_id is not None and not given:  # originals may stay, and be called anything
        expected = "no file of what was forgotten"
        survey.add("files/forgotten", path, expected, "one", image_id)
    if entry.is_symlink():
        if not given:
            found = f"a link to {os.readlink(path)}"  # noqa: PTH115 - as it stands
            survey.add("files/symlink", path, "files and folders", found)
        return
    if entry.is_dir(follow_symlinks=False):
        return
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        survey.add("files/unreadable", path, "a file that can be reached", _told(error))
        return
    if not stat.S_ISREG(status.st_mode):
        if not given:  # what lies in a corpus, ingest refuses with a reason
            survey.add("files/not_a_file", path, "a file", "a pipe, socket or device")
        return
    survey.count("files", files=1, bytes=status.st_size)
    if not os.access(path, os.R_OK, effective_ids=True):
        survey.add("files/unreadable", path, "the right to read", "none")
    if path.is_relative_to(survey.workspace.state):
        if not _may_write(path):
            survey.add("files/not_writable", path, "the right to write", "none")
        _note_unfinished(survey, path)


def _note_unfinished(survey: Survey, path: Path) -> None:
    """Say of what an interrupted stage keeps that it is there: nothing is wrong with it."""
    parts = path.relative_to(survey.workspace.state).parts
    if parts[0] == "fit" or ("parts" in parts and path.suffix == ".parquet"):
        survey.add("files/unfinished", path, "finished work", "a part of an interrupted run")


def _find_orphans(survey: Survey, partition: str) -> None:
    """Report faces and enhanced pictures that no row of the partition knows."""
    workspace = survey.workspace
    faces = survey.rows(IMAGES, partition, ["image_id", "face_path"])
    folder = workspace.processed / "faces" / partition
    if faces is not None and folder.is_dir():
        names = {Path(path).name for path in faces["face_path"].to_list()}
        unfinished = _has_parts(workspace.state / "ingest" / "data" / ".state", "examinations",
                                partition)  # fmt: skip
        known: Callable[[str], bool] = names.__contains__
        if not unfinished:  # crops come before their rows
            _compare(survey, folder, known, lambda name: len(Path(name).stem) == 64, "ingest")
    if not partition.startswith("caf/"):
        return
    folder = workspace.processed / "caf_enhanced" / shard_of(partition)
    if folder.is_dir():
        copied = _copied(survey, partition)
        if copied is not None:
            known = lambda name: name == CONTACT_SHEET or Path(name).stem in copied  # noqa: E731
            _compare(survey, folder, known, is_output, "enhance")


def _compare(
    survey: Survey,
    folder: Path,
    known: Callable[[str], bool],
    is_ours: Callable[[str], bool],
    stage: str,
) -> None:
    for name in _names(folder):
        if name.startswith(".") or known(name):
            continue
        check = "files/orphan" if is_ours(name) else "files/foreign"
        survey.add(check, folder / name, "a row that knows it", "none", stage=stage)


def _copied(survey: Survey, partition: str) -> set[str] | None:
    """Return the images that have an enhanced copy, by the table and by unfinished parts.

    None: neither is there, or the table is damaged, which is said of it and not of each picture.
    """
    rows = survey.rows(ENHANCED, partition, ["image_id", "status"])
    parts = _parts(survey.workspace.state, ENHANCED.name, partition)
    if rows is None and (survey.has(ENHANCED, partition) or not parts):
        return None
    frames = [] if rows is None else [rows]
    for part in parts:
        try:
            frames += SortedTable(part, ENHANCED).slices(["image_id", "status"])
        except READ_ERRORS as error:
            survey.add_unreadable(part, error)
    good = [frame.filter(pl.col("status") == "ok")["image_id"].to_list() for frame in frames]
    return {image_id for its in good for image_id in its}


def _find_orphan_grids(survey: Survey) -> None:
    """Report image features that no caption names."""
    folder = cache_folder(survey.workspace) / "token_grids"
    if not folder.is_dir() or any(_parts_of(survey.workspace.state, CAPTIONS.name)):
        return
    known: set[str] = set()
    for partition in list_partitions(survey.workspace, CAPTIONS):
        if survey.is_at_work(partition):
            return
        for rows in survey.slices(CAPTIONS, partition, ["image_id", "token_grid_path"]):
            known.update(rows["token_grid_path"].drop_nulls().to_list())
        if survey.is_unreadable(survey.path_of(CAPTIONS, partition)):
            return
    for path in sorted(folder.rglob("[!.]*.npy")):
        if path.relative_to(survey.workspace.root).as_posix() not in known:
            expected = "a caption that names it"
            survey.add("files/orphan", path, expected, "none", stage="caption")


def _find_stale_partitions(survey: Survey, known: set[str]) -> None:
    """Report files of partitions that no table `images` has and that no folder brings back."""
    alive = known | set(survey.known_partitions())
    for path, partition in _files_by_partition(survey.workspace):
        if partition not in alive:
            survey.add("files/stale_partition", path, f"a partition {partition}", "none")


def _files_by_partition(workspace: Workspace) -> Iterator[tuple[Path, str]]:
    """Yield what bears a partition's name, with it: folders of files whole."""
    caches = cache_folder(workspace) / "embeddings"
    folders = [workspace.processed / "faces", workspace.stats / "captions",
               workspace.stats / "recheck", caches]  # fmt: skip
    for folder in folders:
        yield from _children(folder, suffixes=())
    enhanced = workspace.processed / "caf_enhanced"
    for name in _names(enhanced):
        if is_shard_name(name):
            yield enhanced / name, caf_partition(name)
    lists = [workspace.stats / "quarantine", workspace.stats / "filter"]
    lists += [p for p in sorted((workspace.stats / "stages").glob("[!.]*")) if p.is_dir()]
    for folder in lists:
        yield from _children(folder, suffixes=(".csv", ".png", ".json"))
    for name in _names(workspace.stats / "enhance_audit"):
        if is_shard_name(Path(name).stem):
            yield workspace.stats / "enhance_audit" / name, caf_partition(Path(name).stem)


def _children(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Yield `<folder>/<partition>` (or with a suffix) with the partition."""
    for name in (*_names(folder), *(f"caf/{shard}" for shard in _names(folder / "caf"))):
        partition = next((name.removesuffix(s) for s in suffixes if name.endswith(s)), name)
        if is_partition(partition):
            yield folder / name, partition


def _names(folder: Path) -> list[str]:
    try:
        return sorted((path.name for path in folder.iterdir()), key=os.fsencode)
    except OSError:  # absent, or said by the walk
        return []


def _has_parts(state: Path, table: str, partition: str) -> bool:
    return bool(_parts(state, table, partition))


def _parts(state: Path, table: str, partition: str) -> list[Path]:
    return sorted((state / "parts" / table / partition).glob("[!.]*.parquet"))


def _parts_of(state: Path, table: str) -> Iterator[Path]:
    return (state / "parts" / table).rglob("[!.]*.parquet")


def _is_leftover(name: str) -> bool:
    """Whether a name is one of `core.files` or `release.swapping` on the way to another."""
    swapped = name.startswith(".") and name.endswith((".new", ".old"))
    return name.startswith(_TEMPORARY) or swapped


def _is_given(survey: Survey, path: Path) -> bool:
    return any(path.is_relative_to(survey.workspace.root / name) for name in _GIVEN)


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=True)


def _told(error: OSError) -> str:
    return error.strerror or str(error)
