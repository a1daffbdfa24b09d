"""What the examination of every distinct content found: kept, so that no file is decoded twice.

A cache among the workspace's state, not a table of the data contract: it may be deleted.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from agetf_pipeline.config.ingest import IngestConfig, SourceConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import write_bytes
from agetf_pipeline.core.hashing import fingerprint, hash_bytes, hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.examine_pool import ExaminePool, Request
from agetf_pipeline.data.file_bytes import read_at_most
from agetf_pipeline.data.incremental import update_table
from agetf_pipeline.data.listing import escape_name
from agetf_pipeline.data.schemas import TableSpec
from agetf_pipeline.data.tables import read_table, to_frame

CODE_VERSION = "2"
"""Raised by hand when `probe` or `faces` find something else in the same bytes."""

EXAMINATIONS = TableSpec(
    "examinations",
    pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("reason", pa.string()),  # null: accepted
            pa.field("detail", pa.string()),
            pa.field("format", pa.string()),
            pa.field("mode", pa.string()),
            pa.field("stored_width_px", pa.int32()),
            pa.field("stored_height_px", pa.int32()),
            pa.field("width_px", pa.int32()),
            pa.field("height_px", pa.int32()),
            pa.field("is_grey", pa.bool_()),
            pa.field("flags", pa.list_(pa.string())),
            pa.field("face_sha256", pa.string()),  # of the crop, where one was made
        ]
    ),
    ("image_id",),
    "What each distinct content is, or why it is not taken.",
)


_PASSING = ("changed_while_read", "decoder_crash")
_CHANGED = (
    "The file changed, or went away, while it was read. Wait until nothing writes to the folder, "
    "and run ingest again."
)


@dataclass(frozen=True)
class Examiner:
    """Examines the distinct contents of one partition, chunk by chunk."""

    workspace: Workspace
    config: IngestConfig
    source: SourceConfig
    partition: str

    @property
    def faces(self) -> Path:
        """Folder of the partition's face crops."""
        return self.workspace.processed / "faces" / self.partition

    def face_path(self, image_id: str) -> Path:
        """Return the file of an image's face crop."""
        return self.faces / f"{image_id}.png"

    def version(self) -> str:
        """Return what makes stored findings stale: limits, cropping, code, decoders."""
        settings: dict[str, Any] = {
            "limits": self.config.limits.settings(),
            "pillow": version("pillow"),
            "face_px": None if self.source.aligned else self.config.face_px,
            "opencv": None if self.source.aligned else version("opencv-python-headless"),
        }
        return fingerprint(settings, CODE_VERSION, {})

    def examine(self, files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
        """Examine contents that have not been examined yet.

        Args:
            files: Image id (sha256 of the content) to a file that has it.

        Returns:
            Image id to a row of `EXAMINATIONS`. What is not the content's own doing is not stored,
            and so tried again whenever this is called anew: a file that changed meanwhile
            (`changed_while_read`), a process that died or took too long (`decoder_crash`).
        """
        cache = Workspace(self.workspace.state / "ingest")
        wanted = pl.DataFrame(
            {"image_id": sorted(files), "version": [self.version()] * len(files)},
            schema={"image_id": pl.String, "version": pl.String},
        )
        settings = self.config
        passing: dict[str, dict[str, Any]] = {}
        with ExaminePool(
            settings.limits, settings.face_px, settings.num_workers, settings.max_decode_s
        ) as pool:

            def compute(chunk: pl.DataFrame) -> pl.DataFrame:
                rows = self._examine(pool, files, chunk["image_id"].to_list())
                lasting = [row for row in rows if row["reason"] not in _PASSING]
                passing.update((r["image_id"], r) for r in rows if r["reason"] in _PASSING)
                return to_frame(lasting, EXAMINATIONS)

            update_table(
                cache,
                EXAMINATIONS,
                self.partition,
                wanted,
                compute,
                settings.chunk_size,
                f"reading {self.partition}",
            )
            rows = read_table(cache, EXAMINATIONS, [self.partition]).to_dicts()
            found = passing | {row["image_id"]: row for row in rows}
            # Crops are files that a person can open, and so delete or change.
            damaged = [image_id for image_id, row in found.items() if not self._has_face(row)]
            found.update(
                (row["image_id"], row) for row in self._examine(pool, files, sorted(damaged))
            )
        return found

    def _examine(
        self, pool: ExaminePool, files: Mapping[str, Path], image_ids: Sequence[str]
    ) -> list[dict[str, Any]]:
        requests = [
            Request(files[i], None if self.source.aligned else self.face_path(i)) for i in image_ids
        ]
        if image_ids and not self.source.aligned:
            self.faces.mkdir(parents=True, exist_ok=True)
        rows = []
        for image_id, answer in zip(image_ids, pool.examine(requests), strict=True):
            if answer["sha256"] != image_id and answer["reason"] != "decoder_crash":
                answer = {"reason": "changed_while_read", "detail": _CHANGED}
            row = {name: answer.get(name) for name in EXAMINATIONS.schema.names}
            rows.append({**row, "image_id": image_id, "version": self.version()})
        return rows

    def _has_face(self, row: Mapping[str, Any]) -> bool:
        if row["face_sha256"] is None:
            return True
        path = self.face_path(row["image_id"])
        return path.is_file() and hash_file(path) == row["face_sha256"]

    def copy(self, image_id: str, path: Path, image_format: str) -> Path:
        """Copy an original beside the crops, under a name that any table can hold.

        Raises:
            StageError: The original changed since it was examined.
        """
        target = self.faces / f"{image_id}.{image_format.lower()}"
        if not target.is_file() or hash_file(target) != image_id:
            data = read_at_most(path, self.config.limits.max_bytes)
            if hash_bytes(data) != image_id:
                raise StageError(f"Expected {escape_name(str(path))} to stay as it is. {_CHANGED}")
            write_bytes(target, data)
        return target

    def remove_orphans(self, face_paths: Collection[str]) -> None:
        """Remove crops and copies that no row names, and what interrupted writes left."""
        kept = {Path(path).name for path in face_paths}
        for path in self.faces.iterdir() if self.faces.is_dir() else ():
            if path.is_file() and path.name not in kept:
                path.unlink()
