"""The files of an enhanced shard: pictures, their sidecars, and the contact sheet.

`data/processed/caf_enhanced/<shard>/` holds, for every image of the shard, `<image_id>.png` and
`<image_id>.json`, and `contact_sheet.jpg`. An image that needs nothing is a copy, re-encoded, so
that whoever reads the folder finds the whole shard there.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl

from agetf_pipeline.core.contact_sheet import Tile, draw_sheet
from agetf_pipeline.core.files import write_bytes, write_json
from agetf_pipeline.core.hashing import hash_bytes, hash_file
from agetf_pipeline.core.workspace import Workspace, shard_of

CONTACT_SHEET = "contact_sheet.jpg"
_ID_LENGTH = 64
_SHEET_PAIRS = 24
_SHEET_COLUMNS = 4


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
        sidecar: Everything about it except the output's own hash and the time, added here.

    Returns:
        The picture's file, its sha256, and the sidecar's file.
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
    write_json(described, {**sidecar, "output": output, "written_at": now})
    return picture, digest, described


def intact(workspace: Workspace, rows: pl.DataFrame) -> pl.Series:
    """Say of rows of the table `enhanced` whether their files are there, as they were written."""
    return pl.Series(
        [
            path is not None and _is_intact(workspace, path, digest, sidecar)
            for path, digest, sidecar in rows.select(
                "enhanced_path", "enhanced_sha256", "sidecar_path"
            ).iter_rows()
        ],
        dtype=pl.Boolean,
    )


def _is_intact(workspace: Workspace, path: str, digest: str, sidecar: str) -> bool:
    picture = workspace.resolve(path)
    if not picture.is_file() or not workspace.resolve(sidecar).is_file():
        return False
    return hash_file(picture) == digest


def remove_orphans(folder: Path, image_ids: set[str]) -> int:
    """Remove outputs of images that the shard no longer has; return how many images they were of.

    Only files named as outputs are touched.
    """
    orphans = {
        path
        for path in folder.glob("*")
        if path.suffix in (".png", ".json")
        and len(path.stem) == _ID_LENGTH
        and path.stem not in image_ids
    }
    for orphan in orphans:
        orphan.unlink()
    return len({orphan.stem for orphan in orphans})


def write_contact_sheet(workspace: Workspace, folder: Path, title: str, rows: pl.DataFrame) -> None:
    """Write a sheet of originals beside their enhanced copies; changed images come first.

    Args:
        workspace: The workspace.
        folder: Of the shard.
        title: Above the sheet.
        rows: Rows of `enhanced` with status ok, joined with `face_path` of the originals.
    """
    tiles = [
        Tile(
            [_read(workspace.resolve(row[name])) for name in ("face_path", "enhanced_path")],
            (
                _what(row),
                f"{row['input_width_px']} -> {row['output_width_px']} px   {row['image_id'][:8]}",
            ),
        )
        for row in _choose(rows)
    ]
    sheet = draw_sheet(title, tiles, _SHEET_COLUMNS)
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


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
