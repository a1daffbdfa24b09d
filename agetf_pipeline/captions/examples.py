"""Images to look at with their captions: which ones, and their pictures where they are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from agetf_pipeline.captions.changes import Piece, changes, removed_words
from agetf_pipeline.captions.flags import FLAGS
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.hashing import hash_bytes
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.csv_files import for_spreadsheets
from agetf_pipeline.data.images import read_rgb
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import table_path

PICTURE_PX = 160
_GRAVITY = {flag: len(FLAGS) - place for place, flag in enumerate(FLAGS)}


@dataclass(frozen=True)
class Example:
    """One image with its caption.

    Attributes:
        image_id: The image.
        partition: Where it is from.
        picture: uint8 (H, W, 3), RGB, its longer side at most `PICTURE_PX`; None: see `missing`.
        missing: Why there is no picture; None where there is.
        caption: Clean; None where there is no usable one.
        raw_caption: As it was written; None where nothing was.
        status: `ok` or `failed`.
        reason: Why there is no usable caption.
        flags: Names of `flags.FLAGS`.
    """

    image_id: str
    partition: str
    picture: np.ndarray | None
    missing: str | None
    caption: str | None
    raw_caption: str | None
    status: str
    reason: str | None
    flags: tuple[str, ...]

    @property
    def pieces(self) -> list[Piece]:
        """The raw caption in pieces that stayed, went, or are new."""
        return changes(self.raw_caption or "", self.caption)

    @property
    def removed(self) -> str:
        """What the filter took out, in a line."""
        return removed_words(self.raw_caption, self.caption)


def choose(rows: pl.DataFrame, num: int, flagged: bool = False) -> pl.DataFrame:
    """Choose rows of an audit to look at: the same ones each time, from all over the corpus.

    Args:
        rows: `CaptionAudit.rows`.
        num: How many, at most.
        flagged: The gravest flags first, instead of whatever comes.
    """
    place = [hash_bytes(image_id.encode()) for image_id in rows["image_id"]]
    keys = {"_place": pl.Series(place, dtype=pl.String)}
    order = ["_place"]
    if flagged:
        gravity = pl.col("flags").list.eval(pl.element().replace_strict(_GRAVITY)).list.max()
        return (
            rows.with_columns(**keys, _gravity=gravity.fill_null(0))
            .sort(["_gravity", *order], descending=[True, False])
            .head(num)
            .drop("_gravity", *order)
        )
    return rows.with_columns(**keys).sort(order).head(num).drop(order)


def read_examples(workspace: Workspace, rows: pl.DataFrame) -> list[Example]:
    """Return rows of an audit with their pictures, in their order."""
    paths = _face_paths(workspace, rows)
    examples = []
    for row in rows.iter_rows(named=True):
        path = paths.get((row["partition"], row["image_id"]))
        picture, missing = _picture(workspace, path)
        examples.append(
            Example(
                row["image_id"], row["partition"], picture, missing, row["caption"],
                row["raw_caption"], row["status"], row["reason"], tuple(row["flags"]),
            )
        )  # fmt: skip
    return examples


def write_examples_csv(path: Path, examples: Sequence[Example]) -> None:
    """Write examples without their pictures, a line each."""
    names = ("image_id", "caption", "raw_caption", "removed", "flags", "reason")
    lines = [
        (e.image_id, e.caption, e.raw_caption, e.removed, _say(e.flags), e.reason) for e in examples
    ]
    frame = pl.DataFrame(lines, schema=dict.fromkeys(names, pl.String), orient="row")
    write_text(path, for_spreadsheets(frame))


def _say(flags: Sequence[str]) -> str:
    return "; ".join(FLAGS[flag] for flag in flags)


def _face_paths(workspace: Workspace, rows: pl.DataFrame) -> dict[tuple[str, str], str]:
    found = {}
    for partition in rows["partition"].unique().sort():
        table = table_path(workspace, IMAGES, partition)
        if table.exists():
            wanted = rows.filter(pl.col("partition") == partition).select("image_id")
            its = pl.scan_parquet(table).select("image_id", "face_path")
            its = its.join(wanted.lazy(), on="image_id", how="semi").collect()
            found |= {(partition, image_id): path for image_id, path in its.iter_rows()}
    return found


def _picture(workspace: Workspace, path: str | None) -> tuple[np.ndarray | None, str | None]:
    """Return a small picture, or why there is none (in words without this machine's paths)."""
    from PIL import Image

    if path is None:
        return None, "not in the table `images` any more"
    if not workspace.resolve(path).is_file():
        return None, f"the file is gone: {path}"
    try:
        image = Image.fromarray(read_rgb(workspace.resolve(path)))
    except DataError:
        return None, f"the file cannot be read: {path}"
    image.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    return np.asarray(image), None
