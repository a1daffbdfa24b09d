"""The files of an enhanced shard: pictures, their sidecars, and the contact sheet.

`data/processed/caf_enhanced/<shard>/` holds, for every image of the shard, `<image_id>.png` and
`<image_id>.json`, and `contact_sheet.jpg`. An image that needs nothing is a copy, re-encoded, so
that whoever reads the folder finds the whole shard there.
"""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl

from agetf_pipeline.core.contact_sheet import Tile, draw_sheet
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import write_bytes
from agetf_pipeline.core.hashing import hash_bytes
from agetf_pipeline.core.workspace import Workspace, shard_of
from agetf_pipeline.data.images import read_rgb
from agetf_pipeline.enhance.findings import check_copy
from agetf_pipeline.enhance.sidecar import write_sidecar

CONTACT_SHEET = "contact_sheet.jpg"
_OUTPUT_NAME = re.compile(r"[0-9a-f]{64}\.(png|json)")
_SHEET_PAIRS = 24
_SHEET_COLUMNS = 2


def enhanced_folder(workspace: Workspace, partition: str) -> Path:
    """Return the folder of a CAF partition's enhanced images."""
    return workspace.processed / "caf_enhanced" / shard_of(partition)


def write_output(
    folder: Path, image_id: str, rgb: np.ndarray, sidecar: dict[str, Any]
) -> tuple[Path, str, Path]:
    """Write a picture and its sidecar, each atomically, the picture first.

    Args:
        folder: Of the shard.
        image_id: Of the original.
        rgb: uint8 (H, W, 3).
        sidecar: What `enhance.sidecar.Sidecar` holds, except what is known here: the output's own
            hash and size, the time, schema and checksum.

    Returns:
        The picture's file, its sha256, and the sidecar's file.

    Raises:
        DataError: `sidecar` is not what a sidecar holds.
    """
    # Level 1: several times faster than the default, for 15 % more bytes.
    _, encoded = cv2.imencode(
        ".png", np.ascontiguousarray(rgb[:, :, ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    data = encoded.tobytes()
    picture, described = folder / f"{image_id}.png", folder / f"{image_id}.json"
    digest = hash_bytes(data)
    write_bytes(picture, data)
    output = {"file": picture.name, "sha256": digest, "width_px": rgb.shape[1]}
    output["height_px"] = rgb.shape[0]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_sidecar(described, {**sidecar, "output": output, "written_at": now})
    return picture, digest, described


def intact(workspace: Workspace, rows: pl.DataFrame) -> pl.Series:
    """Say of rows of the table `enhanced` whether picture and sidecar are as the row has them.

    Where the rows carry `path` and `face_path` of the original, the sidecar must name these too.
    """
    located = {"path", "face_path"} <= set(rows.columns)
    return pl.Series(
        [
            row["enhanced_path"] is not None
            and next(check_copy(workspace, row, row if located else None), None) is None
            for row in rows.iter_rows(named=True)
        ],
        dtype=pl.Boolean,
    )


def remove_orphans(folder: Path, image_ids: set[str]) -> int:
    """Remove outputs of other images than these; return how many images they were of.

    Only files named as outputs are touched.
    """
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as entries:  # names one by one: a shard may have very many
        orphans = [
            Path(entry.path)
            for entry in entries
            if is_output(entry.name)
            and entry.name.partition(".")[0] not in image_ids
            and not entry.is_dir()
        ]
    for orphan in orphans:
        orphan.unlink()
    return len({orphan.stem for orphan in orphans})


def is_output(name: str) -> bool:
    """Say whether a file is named as a picture or a sidecar of this stage."""
    return _OUTPUT_NAME.fullmatch(name) is not None


def sheet_title(partition: str, sources: Mapping[str, str]) -> str:
    """Return the contact sheet's title; it says so where the networks are none to judge by.

    Args:
        partition: Of the shard.
        sources: Network to what it was trained on, as its card says (`enhance.load.trained_on`).
    """
    remarks = {name: _remark(source) for name, source in sorted(sources.items())}
    said = {remark for remark in remarks.values() if remark}
    if len(said) == 1 and all(remarks.values()):
        return f"{partition}: original and enhanced (networks: {said.pop()})"
    named = "; ".join(f"{name}: {remark}" for name, remark in remarks.items() if remark)
    return f"{partition}: original and enhanced" + (f" ({named})" if named else "")


def _remark(source: str) -> str | None:
    if "random" in source.lower():
        return "random weights, no result"
    if source == "synthetic":
        return "trained on synthetic faces"
    return "training not stated" if source.startswith("not stated") else None


def write_contact_sheet(workspace: Workspace, folder: Path, title: str, rows: pl.DataFrame) -> None:
    """Write a sheet of originals beside their enhanced copies; changed images come first.

    Each pair is shown twice: whole, and a detail, in which sharpness can be judged.

    Args:
        workspace: The workspace.
        folder: Of the shard.
        title: Above the sheet.
        rows: Rows of `enhanced` with status ok, joined with `face_path` of the originals. A file
            that cannot be read leaves an empty cell.
    """
    tiles = []
    for row in _choose(rows):
        pair = [_read(workspace.resolve(row[name])) for name in ("face_path", "enhanced_path")]
        details = [None if picture is None else _detail(picture) for picture in pair]
        size = f"{row['input_width_px']} -> {row['output_width_px']} px"
        tiles.append(Tile([*pair, *details], (_what(row), f"{size}   {row['image_id'][:8]}")))
    subtitle = "each: original, enhanced; then the same detail of both"
    sheet = draw_sheet(title, tiles, _SHEET_COLUMNS, subtitle)
    bgr = np.ascontiguousarray(sheet[:, :, ::-1])
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])
    write_bytes(folder / CONTACT_SHEET, data.tobytes())


def _choose(rows: pl.DataFrame) -> list[dict]:
    """Take turns among the kinds of change, so that each is seen; untouched images last."""
    ranked = rows.sort("image_id").with_columns(
        pl.int_range(pl.len()).over("colourised", "super_resolved").alias("turn"),
        (pl.col("colourised") | pl.col("super_resolved")).alias("changed"),
    )
    order = ["changed", "turn", "colourised", "super_resolved"]
    ranked = ranked.sort(order, descending=[True, False, True, True], maintain_order=True)
    # One untouched pair shows that they are left alone; more would show nothing.
    changed = ranked.filter("changed").head(_SHEET_PAIRS - 1)
    return [*changed.to_dicts(), *ranked.filter(~pl.col("changed")).head(1).to_dicts()]


def _what(row: dict) -> str:
    done = [name for name in ("colourised", "super_resolved") if row[name]]
    return (" + ".join(done) or "passed through").replace("super_resolved", "super-resolved")


def _detail(rgb: np.ndarray) -> np.ndarray:
    """Return a square of a third of the shorter side, above the middle, where a face's eyes are."""
    height, width = rgb.shape[:2]
    side = max(1, round(min(height, width) / 3))
    top, left = round(0.42 * height - side / 2), round(0.5 * width - side / 2)
    return rgb[max(0, top) : max(0, top) + side, max(0, left) : max(0, left) + side]


def _read(path: Path) -> np.ndarray | None:
    try:
        return read_rgb(path)
    except DataError:
        return None
