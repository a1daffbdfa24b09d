"""Files behind the tables: images that open and are what their rows say, weights without NaN."""

import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_bytes, hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.images import read_rgb
from agetf_pipeline.quality.rule import Rule

_BLANK_SPREAD = 2.0
"""Standard deviation of the 8-bit values under which a picture shows nothing."""

IMAGE_RULES: tuple[Rule, ...] = (
    Rule("there", "Every file that a row names is there", ~pl.col("there")),
    Rule("readable", "Every picture can be decoded", pl.col("unreadable").is_not_null()),
    Rule(
        "size_as_told",
        "A picture has the size that its row says",
        (pl.col("width_px") != pl.col("told_width_px"))
        | (pl.col("height_px") != pl.col("told_height_px")),
    ),
    Rule(
        "bytes_as_told",
        "A file has the sha256 that its row says",
        pl.col("sha256") != pl.col("told_sha256"),
    ),
    Rule(
        "not_blank",
        f"A picture shows something (its values spread by more than {_BLANK_SPREAD:g} of 255)",
        pl.col("spread") <= _BLANK_SPREAD,
        "warning",
        0.02,
    ),
)

WEIGHTS_RULES: tuple[Rule, ...] = (
    Rule("readable", "Weights files can be read", pl.col("unreadable").is_not_null()),
    Rule("not_empty", "Networks have parameters", pl.col("num_parameters") == 0),
    Rule("finite", "No weight is NaN or infinite", pl.col("num_not_finite") > 0),
    Rule(
        "not_constant",
        "No network's weights are all the same",
        pl.col("lowest") == pl.col("highest"),
    ),
)

_IMAGE_TYPES = {
    "image_id": pl.String, "path": pl.String, "there": pl.Boolean, "unreadable": pl.String,
    "width_px": pl.Int64, "height_px": pl.Int64, "sha256": pl.String, "spread": pl.Float64,
    "told_width_px": pl.Int64, "told_height_px": pl.Int64, "told_sha256": pl.String,
}  # fmt: skip
_WEIGHTS_TYPES = {
    "file": pl.String, "unreadable": pl.String, "num_parameters": pl.Int64,
    "num_looked_at": pl.Int64, "num_not_finite": pl.Int64, "lowest": pl.Float64,
    "highest": pl.Float64,
}  # fmt: skip


def sample_rows(frame: pl.DataFrame, num_rows: int) -> pl.DataFrame:
    """Return that many rows, the same ones for the same rows, spread over all of them.

    A hash orders them: taking the first of a table sorted by `image_id` would look at the same
    images for ever, and never at new ones.
    """
    if frame.height <= num_rows:
        return frame
    order = [hash_bytes(image_id.encode()) for image_id in frame["image_id"]]
    return (
        frame.with_columns(pl.Series("_order", order))
        .sort("_order")
        .head(num_rows)[:, : frame.width]
    )


def look_at_images(workspace: Workspace, rows: pl.DataFrame) -> pl.DataFrame:
    """Open the files of some rows.

    Args:
        workspace: The workspace.
        rows: `image_id`, `path`, and what the table says of the file: `told_width_px`,
            `told_height_px`, `told_sha256` (null where it says nothing).

    Returns:
        The same, with what was found: `there`, `unreadable` (why), size, `sha256`, `spread`.
    """
    looked = [row | _look_at(workspace.resolve(row["path"])) for row in rows.iter_rows(named=True)]
    return pl.DataFrame(looked, schema=_IMAGE_TYPES)


def _look_at(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "there": path.is_file(), "unreadable": None, "width_px": None, "height_px": None,
        "sha256": None, "spread": None,
    }  # fmt: skip
    if not found["there"]:
        return found
    try:
        rgb_HWC = read_rgb(path)
    except DataError as error:
        return found | {"unreadable": str(error), "sha256": hash_file(path)}
    height, width = rgb_HWC.shape[:2]
    return found | {
        "width_px": width,
        "height_px": height,
        "sha256": hash_file(path),
        "spread": float(rgb_HWC.std()),
    }


def look_at_weights(paths: Sequence[Path], root: Path, max_bytes: int) -> pl.DataFrame:
    """Read safetensors files, at most `max_bytes` of each; a row per file.

    The format is read here, rather than by its package, because that needs PyTorch for bfloat16 and
    a check must not take seconds to start.

    Source: the format's own description, github.com/huggingface/safetensors: 8 bytes of length,
    little-endian; that many of JSON, `{name: {dtype, shape, data_offsets}}`; the tensors.
    """
    rows = [
        {"file": path.name if root not in path.parents else path.relative_to(root).as_posix()}
        | _look_at_weights(path, max_bytes)
        for path in paths
    ]
    return pl.DataFrame(rows, schema=_WEIGHTS_TYPES)


def _look_at_weights(path: Path, max_bytes: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "unreadable": None, "num_parameters": 0, "num_looked_at": 0, "num_not_finite": 0,
        "lowest": None, "highest": None,
    }  # fmt: skip
    try:
        start, tensors, _ = _header(path)
        content = np.memmap(path, np.uint8, "r") if tensors else np.zeros(0, np.uint8)
        lowest, highest = math.inf, -math.inf
        for tensor in tensors.values():
            first, last = tensor["data_offsets"]
            if start + last > len(content):
                raise ValueError(f"it ends {start + last - len(content)} bytes too early")
            found["num_parameters"] += math.prod(tensor["shape"])
            if last > max_bytes:
                continue
            values = _values(content[start + first : start + last], tensor["dtype"])
            if values is None or not len(values):
                continue
            finite = np.isfinite(values)
            found["num_looked_at"] += len(values)
            found["num_not_finite"] += int((~finite).sum())
            if finite.any():
                kept = values[finite]
                lowest, highest = min(lowest, float(kept.min())), max(highest, float(kept.max()))
        if highest >= lowest:
            found |= {"lowest": lowest, "highest": highest}
    except (OSError, ValueError, KeyError, struct.error) as error:
        found["unreadable"] = str(error) or type(error).__name__
    return found


def describe_weights(path: Path) -> dict[str, str]:
    """Return what a person wants to know of a safetensors file, and its card; {} if unreadable."""
    try:
        _, tensors, metadata = _header(path)
        card = json.loads(metadata.get("card", "{}"))
    except (OSError, ValueError, KeyError, struct.error):
        return {}
    kinds = sorted({tensor["dtype"] for tensor in tensors.values()})
    described = {
        "tensors": len(tensors),
        "parameters": sum(math.prod(tensor["shape"]) for tensor in tensors.values()),
        "types": ", ".join(kinds),
        "bytes": path.stat().st_size,
        **card,
    }
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in described.items()
    }


def _header(path: Path) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return where the tensors begin, the tensors by name, and what else the header says."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > path.stat().st_size:
            raise ValueError("its header is longer than the file")
        header = json.loads(stream.read(length))
    metadata = header.pop("__metadata__", {})
    return 8 + length, header, metadata


def _values(raw: np.ndarray, dtype: str) -> np.ndarray | None:
    """Return the numbers of a tensor; None for whole numbers and for types of one byte."""
    if dtype == "BF16":
        # The upper half of a float32.
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    known = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
    return raw.view(known[dtype]) if dtype in known else None
