"""The audit of an enhanced shard: every link between originals, copies, sidecars and rows.

It reads and changes nothing. Everything is hashed again, so that a flipped bit is found, too. What
an interrupted run had finished (its part files) counts as rows; that it is unfinished is a note.
"""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import polars as pl

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.workspace import Workspace, caf_partition, shard_of
from agetf_pipeline.data.schemas import ENHANCED, IMAGES
from agetf_pipeline.data.streaming import SortedTable, read_slices
from agetf_pipeline.data.tables import empty_frame, table_path
from agetf_pipeline.enhance.findings import Finding, check_copy, picture_size
from agetf_pipeline.enhance.outputs import CONTACT_SHEET, enhanced_folder, is_output

_SLICE_ROWS = 1024
_TEMPORARY = ".tmp-"


def audit_partition(
    workspace: Workspace,
    partition: str,
    alone: bool = True,
    originals: bool = True,
    hashing: bool = True,
) -> list[Finding]:
    """Re-verify every link of one enhanced shard; change nothing.

    Memory grows with the number of images (their identities and paths), not with their files.

    Args:
        workspace: The workspace.
        partition: A CAF partition.
        alone: Whether the stage is kept from starting meanwhile.
        originals: Whether the originals and their faces are looked at, too.
        hashing: Whether copies are hashed; else they are only to be there, and of the told size.

    Returns:
        Everything found, errors and notes, in the order of kind, image and path. No error: every
        image of the shard has a row, every row its picture and its sidecar, all three agree, and
        the original is what it was.

    Raises:
        StageError: The stage is at work on this shard.
        DataError: The partition is no CAF shard.
    """
    partition = caf_partition(shard_of(partition))
    with _alone(workspace, partition) if alone else nullcontext():
        return sorted(_audit(workspace, partition, originals, hashing), key=_order)


def _order(finding: Finding) -> tuple[bool, str, str, str, str]:
    return (
        not finding.is_error,
        finding.kind,
        finding.image_id or "",
        finding.path,
        finding.expected,
    )


def _alone(workspace: Workspace, partition: str) -> AbstractContextManager[None]:
    """Hold the lock that the stage holds while it runs; where there is none, it never ran."""
    lock = workspace.state / "locks" / "stages" / f"enhance {partition}.lock"
    if not lock.exists() or not os.access(lock, os.W_OK):
        return nullcontext()
    return exclusive_lock(lock, f"the audit of {partition}", wait=False)


def _audit(
    workspace: Workspace, partition: str, originals: bool, hashing: bool
) -> Iterator[Finding]:
    folder = enhanced_folder(workspace, partition)
    table = table_path(workspace, ENHANCED, partition)
    where = workspace.relative(table)
    try:
        images = _read_images(workspace, partition)
        parts, num_parts = _read_parts(workspace, partition)
        if table.exists():
            SortedTable(table, ENHANCED)
    except DataError as error:
        yield Finding("table_damaged", None, where, "readable tables", str(error))
        return
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    recorded = table.exists() or num_parts > 0
    if num_parts:
        what = f"{parts.height} rows in {num_parts} part(s) of an interrupted run"
        yield Finding("unfinished", None, where, "a finished run", what)
    elif not recorded:
        kind = "no_table" if images.height or names else "not_enhanced"
        yield Finding(kind, None, where, f"rows of {images.height} image(s)", "no table")
    known, copied = set(), set()
    with Progress(f"audit {partition}", images.height) as progress:
        for candidates in _rows_by_image(workspace, partition, parts, images):
            known.add(candidates[0]["image_id"])
            if any(row["status"] == "ok" for row in candidates):
                copied.add(candidates[0]["image_id"])
            yield from _check_image(workspace, where, candidates, originals, hashing)
            progress.advance()
    if recorded:
        for image_id, path in images.select("image_id", "path").iter_rows():
            if image_id not in known:
                yield Finding("gap", image_id, path, "a row in the table", "none")
    yield from _check_folder(workspace, folder, names, copied)
    if copied and not num_parts and CONTACT_SHEET not in names:
        sheet = workspace.relative(folder / CONTACT_SHEET)
        yield Finding("sheet_missing", None, sheet, "a contact sheet", "nothing")


def _read_images(workspace: Workspace, partition: str) -> pl.DataFrame:
    """Return identity and paths of the shard's images; none where it was never ingested."""
    columns = ["image_id", "path", "face_path"]
    slices = [pl.DataFrame(schema=dict.fromkeys(columns, pl.String))]
    if table_path(workspace, IMAGES, partition).exists():
        slices += read_slices(workspace, IMAGES, partition, _SLICE_ROWS, columns)
    return pl.concat(slices)


def _read_parts(workspace: Workspace, partition: str) -> tuple[pl.DataFrame, int]:
    """Return the rows that interrupted runs left beside the table (see `data.incremental`)."""
    folder = workspace.state / "parts" / ENHANCED.name / partition
    files = [path for path in sorted(folder.glob("*.parquet")) if not _is_temporary(path.name)]
    rows = [rows for file in files for rows in SortedTable(file, ENHANCED).slices()]
    return pl.concat([empty_frame(ENHANCED), *rows]), len(files)


def _rows_by_image(
    workspace: Workspace, partition: str, parts: pl.DataFrame, images: pl.DataFrame
) -> Iterator[list[dict[str, Any]]]:
    """Yield every image's rows, those of parts too, with `path` and `face_path` of its original.

    The paths are null where the shard no longer has the image.
    """
    rest = parts
    if table_path(workspace, ENHANCED, partition).exists():
        for rows in read_slices(workspace, ENHANCED, partition, _SLICE_ROWS):
            more = rest.join(rows, on="image_id", how="semi")
            rest = rest.join(rows, on="image_id", how="anti")
            yield from _grouped(pl.concat([more, rows]), images)
    for image_rows in rest.sort("image_id").partition_by("image_id"):
        yield from _grouped(image_rows, images)


def _grouped(rows: pl.DataFrame, images: pl.DataFrame) -> Iterator[list[dict[str, Any]]]:
    located = rows.join(images, on="image_id", how="left")
    for group in located.partition_by("image_id", maintain_order=True):
        yield group.to_dicts()


def _check_image(
    workspace: Workspace,
    where: str,
    candidates: list[dict[str, Any]],
    originals: bool,
    hashing: bool,
) -> list[Finding]:
    """Return what is wrong with one image; of several rows, the one that fits best counts."""
    rows = (_check_row(workspace, where, row, originals, hashing) for row in candidates)
    return min(rows, key=_weight)


def _weight(findings: list[Finding]) -> tuple[int, int]:
    return sum(finding.is_error for finding in findings), len(findings)


def _check_row(
    workspace: Workspace, where: str, row: dict[str, Any], originals: bool, hashing: bool
) -> list[Finding]:
    image_id = row["image_id"]
    if row["path"] is None:
        return [Finding("stale_row", image_id, where, "an image of the shard", "none")]
    if row["status"] != "ok":
        return [Finding("failed", image_id, row["path"], "a copy", row["reason"] or "no reason")]
    found = list(check_copy(workspace, row, row, hashing))
    return [*found, *_check_original(workspace, row)] if originals else found


def _check_original(workspace: Workspace, row: dict[str, Any]) -> Iterator[Finding]:
    image_id, path, face_path = row["image_id"], row["path"], row["face_path"]
    file, face = original_file(workspace, path), workspace.resolve(face_path)
    if not file.is_file():
        yield Finding("original_missing", image_id, path, "the original", "nothing")
    else:
        try:
            digest = hash_file(file)
        except OSError as error:
            digest = str(error)
        if digest != image_id:
            yield Finding("original_altered", image_id, path, image_id, digest)
    if face_path == path:
        return
    if not face.is_file():
        yield Finding("face_missing", image_id, face_path, "the face image", "nothing")
        return
    size, wanted = picture_size(face), f"{row['input_width_px']} x {row['input_height_px']} px"
    # A copy of the original may be stored sideways; a crop is upright.
    if size != wanted and hash_file(face) != image_id:
        yield Finding("face_size", image_id, face_path, wanted, size)


def original_file(workspace: Workspace, path: str) -> Path:
    """Return an original's file, also where its name is no UTF-8 and the table has it escaped."""
    file = workspace.resolve(path)
    if file.exists() or "\\x" not in path:
        return file
    # The inverse of `data.listing.escape_name`, which escapes the backslash too.
    raw = re.sub(
        rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), path.encode()
    )
    return workspace.root / os.fsdecode(raw)


def _check_folder(
    workspace: Workspace, folder: Path, names: list[str], copied: set[str]
) -> Iterator[Finding]:
    """Yield files that no row knows."""
    for name in names:
        path = workspace.relative(folder / name)
        if _is_temporary(name):
            yield Finding("temporary", None, path, "no temporary file", name)
        elif is_output(name):
            image_id = Path(name).stem
            if image_id not in copied:
                yield Finding("orphan", image_id, path, "a row that knows it", "none")
        elif name != CONTACT_SHEET:
            yield Finding("foreign_file", None, path, "files of the stage alone", name)


def _is_temporary(name: str) -> bool:
    return name.startswith(_TEMPORARY)
