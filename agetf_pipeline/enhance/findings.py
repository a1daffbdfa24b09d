"""What may be wrong with an enhanced shard, and the check of one copy against everything about it.

The same check decides whether the stage keeps a copy and whether the audit complains of it: what
the audit finds wrong with a picture or a sidecar, the next run of the stage makes again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.enhance.sidecar import differences, read_sidecar

_RERUN = "run the stage enhance"
_RESTORE = "restore the file, or run ingest and enhance without it"

ERRORS: dict[str, str] = {
    "no_table": f"{_RERUN} on this shard",
    "table_damaged": f"delete the table and {_RERUN}",
    "gap": f"{_RERUN}: it makes the missing copy",
    "stale_row": f"{_RERUN}: it drops the row and its files",
    "misnamed": f"{_RERUN}: it makes the copy again under its own name",
    "picture_missing": f"{_RERUN}: it makes the picture again",
    "picture_altered": f"{_RERUN}: it makes the picture again",
    "picture_size": f"{_RERUN}: it makes the picture again",
    "superseded": f"{_RERUN}: it was stopped while it made this copy again, and goes on there",
    "sidecar_missing": f"{_RERUN}: it makes picture and sidecar again",
    "sidecar_invalid": f"{_RERUN}: it makes picture and sidecar again",
    "sidecar_mismatch": f"{_RERUN}: it makes picture and sidecar again",
    "original_missing": _RESTORE,
    "original_altered": f"{_RESTORE}; an altered file is another image",
    "face_missing": "run ingest: it cuts the face again",
    "face_size": "run ingest, then enhance: the face is not the one that was enhanced",
    "orphan": f"{_RERUN}: it removes or replaces files that no row knows",
    "temporary": f"{_RERUN}: it removes what an interrupted write left",
    "sheet_missing": f"{_RERUN}: it draws the contact sheet again",
}
"""Broken links: kind to what to do about it."""

NOTES: dict[str, str] = {
    "unfinished": f"{_RERUN}: it goes on where it was stopped",
    "failed": "see the reason; the stage tries the image again when it runs",
    "foreign_file": "nothing: no stage reads or removes it",
    "not_enhanced": "run ingest and enhance, if the shard is to be enhanced",
}
"""What a person may want to know, but what is not wrong: kind to what to do about it."""


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        kind: A key of `ERRORS` or `NOTES`.
        image_id: Of the original, where it is about one image.
        path: The file or table concerned, relative to the workspace where it lies in it.
        expected: In a few words, or a value.
        found: Likewise.
    """

    kind: str
    image_id: str | None
    path: str
    expected: str
    found: str

    @property
    def is_error(self) -> bool:
        """Whether a link is broken."""
        return self.kind in ERRORS

    @property
    def what_to_do(self) -> str:
        """What repairs it."""
        return ERRORS.get(self.kind) or NOTES[self.kind]


def check_copy(
    workspace: Workspace,
    row: Mapping[str, Any],
    image: Mapping[str, Any] | None,
    hashing: bool = True,
) -> Iterator[Finding]:
    """Yield what is wrong with the picture and the sidecar of one row.

    Args:
        workspace: The workspace.
        row: Of the table `enhanced`, status ok.
        image: `path` and `face_path` of the original; None: not compared with the sidecar's.
        hashing: Whether the picture is hashed; else it is only to be there, and of the told size.
    """
    image_id, path, described = row["image_id"], row["enhanced_path"], row["sidecar_path"]
    for name, suffix in ((path, ".png"), (described, ".json")):
        if Path(name).name != image_id + suffix:
            yield Finding("misnamed", image_id, name, image_id + suffix, Path(name).name)
            return
    digest, problems = _check_picture(workspace, row, hashing)
    try:
        sidecar = read_sidecar(workspace.resolve(described))
    except DataError as error:
        yield from problems
        missing = not workspace.resolve(described).is_file()
        kind = "sidecar_missing" if missing else "sidecar_invalid"
        found = "nothing" if missing else _short(error)
        yield Finding(kind, image_id, described, "a sidecar", found)
        return
    differing = list(differences(sidecar, row, image))
    if digest not in (None, row["enhanced_sha256"]) and sidecar.output.sha256 == digest:
        # Picture and sidecar agree with each other: the row is the older one.
        expected = f"sha256 {row['enhanced_sha256']}, settings {row['settings_version']}"
        found = f"sha256 {digest}, settings {sidecar.settings_version}, {sidecar.written_at}"
        yield Finding("superseded", image_id, path, expected, found)
        return
    yield from problems
    for field, expected, found in differing:
        yield Finding(
            "sidecar_mismatch", image_id, described, f"{field} {expected}", f"{field} {found}"
        )


def _check_picture(
    workspace: Workspace, row: Mapping[str, Any], hashing: bool
) -> tuple[str | None, list[Finding]]:
    """Return the picture's sha256 (None: unreadable, or not hashed) and what is wrong with it."""
    image_id, path, expected = row["image_id"], row["enhanced_path"], row["enhanced_sha256"]
    file = workspace.resolve(path)
    if not file.is_file():
        return None, [Finding("picture_missing", image_id, path, "a picture", "nothing")]
    try:
        digest = hash_file(file) if hashing else None
    except OSError as error:
        return None, [Finding("picture_altered", image_id, path, "a readable file", str(error))]
    if digest not in (None, expected):
        wrong = Finding("picture_altered", image_id, path, f"sha256 {expected}", f"sha256 {digest}")
        return digest, [wrong]
    size = picture_size(file)
    wanted = f"{row['output_width_px']} x {row['output_height_px']} px"
    if size != wanted:
        return digest, [Finding("picture_size", image_id, path, wanted, size)]
    return digest, []


def picture_size(file: Path) -> str:
    """Return an image file's size as its header says it, `W x H px`, or why there is none."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return f"{image.width} x {image.height} px"
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return f"no readable image ({error})"


def _short(error: DataError) -> str:
    text = str(error).partition("; found ")[2] or str(error)
    return text.partition(". Run the stage")[0]
