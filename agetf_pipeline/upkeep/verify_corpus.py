"""Photographs against the tables of ingest: there, unaltered, and each in exactly one table."""

from collections.abc import Mapping

import polars as pl

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import is_caf
from agetf_pipeline.data.caf import MANIFEST_NAME
from agetf_pipeline.data.corpora import source_folder
from agetf_pipeline.data.examinations import EXAMINATIONS
from agetf_pipeline.data.ffhq_aging import LABELS_NAME
from agetf_pipeline.data.listing import Found, escape_name, list_files
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.data.tables import list_partitions
from agetf_pipeline.enhance.audit import original_file
from agetf_pipeline.enhance.findings import picture_size
from agetf_pipeline.upkeep.verify_lists import verify_lists
from agetf_pipeline.upkeep.verify_survey import Survey
from agetf_pipeline.upkeep.verify_tables import examinations_workspace

_NOT_THERE = ("missing_file", "conflicting_rows", "bad_age", "outside_folder", "forgotten")
"""Reasons of quarantine that a manifest's row may have without a file."""
_COPIED = "name_not_utf8"


def verify_corpus(survey: Survey, partition: str, images: pl.DataFrame) -> set[str]:
    """Check the photographs of a partition and the faces that were cut out of them.

    Args:
        survey: The verification.
        partition: The partition.
        images: `image_id`, `path`, `face_path`, `flags`, `width_px`, `height_px`, `num_bytes`.

    Returns:
        Paths (escaped) that other partitions are to hold: `verify_duplicates` looks for them.
    """
    folder = source_folder(survey.config, survey.workspace, partition)
    if not folder.is_dir():
        if images.height:
            found = "nothing"
            survey.add("links/corpus_missing", folder, f"{images.height} photographs", found)
        return set()
    kept_elsewhere = _check_listing(survey, partition, images)
    _check_originals(survey, images)
    _check_faces(survey, partition, images)
    return kept_elsewhere


def _check_listing(survey: Survey, partition: str, images: pl.DataFrame) -> set[str]:
    """Every file in one table, every row a file; return the files that others are to hold."""
    config = survey.config.ingest
    source = config.caf if is_caf(partition) else config.ffhq_aging
    folder = source_folder(survey.config, survey.workspace, partition)
    besides = (MANIFEST_NAME if is_caf(partition) else LABELS_NAME,)
    try:
        listed = list_files(folder, besides, source.follow_links)
    except (DataError, OSError) as error:
        survey.add("files/unreadable", folder, "a folder that can be listed", str(error))
        return set()
    survey.count("links", corpus_files=len(listed))
    verify_lists(survey, partition, listed)
    base = survey.workspace.relative(folder)
    here = {escape_name(f"{base}/{found.relative}"): found for found in listed}
    columns = ["path", "image_id", "reason", "duplicate_of"]
    refused = survey.rows(QUARANTINE, partition, columns)
    if refused is None:
        return set()
    taken = {
        path if _COPIED in flags else escape_name(path): image_id
        for path, image_id, flags in images.select("path", "image_id", "flags").iter_rows()
    }
    for path in refused["path"].to_list():
        if path in taken:
            survey.add("links/taken_and_refused", path, "images or quarantine", "both", taken[path])
    known = {*taken, *refused["path"].to_list()}
    for path, found in here.items():
        if path not in known:
            survey.add("links/not_ingested", path, "a row in images or quarantine", _told(found))
    for path, reason in refused.select("path", "reason").iter_rows():
        if path not in here and reason not in _NOT_THERE:
            survey.add("links/refused_file_gone", path, f"the file refused as {reason}", "nothing")
    return {name for name in refused["duplicate_of"].drop_nulls().to_list() if name not in taken}


def _told(found: Found) -> str:
    return found.detail or f"none; the file has {found.num_bytes} bytes"


def verify_duplicates(survey: Survey, kept: Mapping[str, set[str]]) -> None:
    """Check that files of other partitions, as duplicates of which some were refused, are held.

    Args:
        survey: The verification.
        kept: Partition to the (escaped) paths that it does not hold itself.
    """
    missing = {name for names in kept.values() for name in names}
    # Every table once, whatever the number of partitions that ask.
    for partition in list_partitions(survey.workspace, IMAGES) if missing else ():
        for rows in survey.slices(IMAGES, partition, ["path", "flags"]):
            paths = rows.iter_rows()
            missing -= {path if _COPIED in flags else escape_name(path) for path, flags in paths}
        if not missing:
            return
    for partition, names in sorted(kept.items()):
        table = survey.name_of(survey.path_of(IMAGES, partition))
        for name in sorted(names & missing):
            survey.add("links/duplicate_of", name, f"a row in {table}", "none")


def _check_originals(survey: Survey, images: pl.DataFrame) -> None:
    files = {}
    for image_id, path, num_bytes in images.select("image_id", "path", "num_bytes").iter_rows():
        file = original_file(survey.workspace, path)
        try:
            size = file.stat().st_size if file.is_file() else None
        except OSError as error:
            survey.add("files/unreadable", path, "a readable file", str(error), image_id)
            continue
        if size is None:
            survey.add("links/original_missing", path, "the photograph", "nothing", image_id)
        elif size != num_bytes:
            expected, found = f"{num_bytes} bytes", f"{size} bytes"
            survey.add("links/original_altered", path, expected, found, image_id)
        else:
            files[file] = (image_id, path)
    survey.count("links", originals=len(files))
    if survey.quick:
        return
    for file, digest in survey.hashes("links", files):
        image_id, path = files[file]
        if isinstance(digest, OSError):
            survey.add("files/unreadable", path, "a readable file", str(digest), image_id)
        elif digest != image_id:
            survey.add("links/original_altered", path, image_id, digest, image_id)


def _check_faces(survey: Survey, partition: str, images: pl.DataFrame) -> None:
    """Check crops (and copies under another name) by the hash that ingest noted."""
    made = images.filter(pl.col("face_path") != pl.col("path"))
    if not made.height:
        return
    cache = examinations_workspace(survey.workspace)
    noted = survey.rows(EXAMINATIONS, partition, ["image_id", "face_sha256"], cache)
    hashes = {} if noted is None else dict(noted.drop_nulls().iter_rows())
    files = {}
    for row in made.iter_rows(named=True):
        image_id, name = row["image_id"], row["face_path"]
        file = survey.workspace.resolve(name)
        expected = hashes.get(image_id) or (image_id if _COPIED in row["flags"] else None)
        if not file.is_file():
            survey.add("links/face_missing", name, "the face image", "nothing", image_id)
            continue
        files[file] = (image_id, name, expected)
        if expected == image_id:
            continue  # a copy of the original, which may be stored sideways
        size, wanted = picture_size(file), f"{row['width_px']} x {row['height_px']} px"
        if size != wanted:
            survey.add("links/face_size", name, wanted, size, image_id)
            del files[file]
    survey.count("links", faces=len(files))
    if survey.quick:
        return
    for file, digest in survey.hashes("links", files):
        image_id, name, expected = files[file]
        if isinstance(digest, OSError):
            survey.add("files/unreadable", name, "a readable file", str(digest), image_id)
        elif expected is not None and digest != expected:
            survey.add("links/face_altered", name, expected, digest, image_id)
        elif expected is None:
            _decode(survey, name, image_id)


def _decode(survey: Survey, name: str, image_id: str) -> None:
    """Without ingest's notes, which may be deleted, a face is to be a whole picture at least."""
    from agetf_pipeline.data.images import read_rgb

    try:
        read_rgb(survey.workspace.resolve(name))
    except DataError as error:
        survey.add("links/face_altered", name, "a picture that decodes", str(error), image_id)
