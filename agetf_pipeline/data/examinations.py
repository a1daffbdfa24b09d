"""Examining every distinct content of a partition, each once."""

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agetf_pipeline.config.ingest import IngestConfig, SourceConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import write_bytes
from agetf_pipeline.core.hashing import fingerprint, hash_bytes, hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.corpus_store import CorpusStore
from agetf_pipeline.data.examination_cache import EXAMINATIONS, update_cache
from agetf_pipeline.data.examine_pool import ExaminePool, Request
from agetf_pipeline.data.file_bytes import read_at_most
from agetf_pipeline.data.listing import escape_name
from agetf_pipeline.data.streaming import SortedTable
from agetf_pipeline.data.tables import table_path

CODE_VERSION = "2"
"""Raised by hand when `probe` or `faces` find something else in the same bytes."""

__all__ = ["CODE_VERSION", "EXAMINATIONS", "Examiner"]

_SLICE = 512
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

    def examine_all(self, store: CorpusStore) -> None:
        """Examine the wanted contents of a store that have not been examined yet.

        What is not the content's own doing is noted in the store alone, and so tried again whenever
        this is called anew: a file that changed meanwhile (`changed_while_read`), a process that
        died or took too long (`decoder_crash`).
        """
        settings = self.config
        with ExaminePool(
            settings.limits, settings.face_px, settings.num_workers, settings.max_decode_s
        ) as pool:

            def examine(contents: Iterable[tuple[bytes, bytes]]) -> Iterator[dict[str, Any]]:
                for row in self._examine(pool, store, contents):
                    if row["reason"] in _PASSING:
                        _note(store, row)
                    else:
                        yield row

            update_cache(self._cache, self.partition, self.version(), store, examine,
                         settings.chunk_size)  # fmt: skip
            if not self.source.aligned:
                # Crops are files that a person can open, and so delete or change.
                damaged = [
                    bytes.fromhex(image_id)
                    for found in self.findings(store)
                    for image_id, row in found.items()
                    if not self._has_face(row)
                ]
                names = (
                    (i, store.value("SELECT name FROM wanted WHERE image_id = ?", (i,)))
                    for i in damaged
                )
                for row in self._examine(pool, store, list(names)):
                    _note(store, row)

    def findings(self, store: CorpusStore) -> Iterator[dict[str, dict[str, Any]]]:
        """Yield what was found of all wanted contents of a store, in order, some at a time.

        Yields:
            Image id to a row of `EXAMINATIONS`.
        """
        table = SortedTable(table_path(self._cache, EXAMINATIONS, self.partition), EXAMINATIONS)
        last = b""
        while some := store.run(
            "SELECT image_id FROM wanted WHERE image_id > ? ORDER BY image_id LIMIT ?",
            (last, _SLICE),
        ).fetchall():
            first, last = some[0][0], some[-1][0]
            rows = table.between(first.hex(), last.hex())
            found: dict[str, dict[str, Any]] = (
                {} if rows is None else {row["image_id"]: row for row in rows.to_dicts()}
            )
            noted = "SELECT finding FROM findings WHERE image_id BETWEEN ? AND ?"
            for (finding,) in store.run(noted, (first, last)).fetchall():
                row = json.loads(finding)
                found[row["image_id"]] = row
            yield {i.hex(): found[i.hex()] for (i,) in some}

    @property
    def _cache(self) -> Workspace:
        return Workspace(self.workspace.state / "ingest")

    def _examine(
        self, pool: ExaminePool, store: CorpusStore, contents: Iterable[tuple[bytes, bytes]]
    ) -> Iterator[dict[str, Any]]:
        """Yield rows for (image id, name) of contents, in order."""
        asked: deque[str] = deque()
        names, version = EXAMINATIONS.schema.names, self.version()

        def requests() -> Iterator[Request]:
            for raw, name in contents:
                image_id = raw.hex()
                crop_to = None if self.source.aligned else self.face_path(image_id)
                if crop_to is not None and not asked:
                    self.faces.mkdir(parents=True, exist_ok=True)
                asked.append(image_id)
                yield Request(store.path_of(name), crop_to)

        for answer in pool.stream(requests()):
            image_id = asked.popleft()
            if answer["sha256"] != image_id and answer["reason"] != "decoder_crash":
                answer = {"reason": "changed_while_read", "detail": _CHANGED}
            row = {name: answer.get(name) for name in names}
            yield {**row, "image_id": image_id, "version": version}

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

    def has_faces(self) -> bool:
        """Whether there are crops or copies."""
        if not self.faces.is_dir():
            return False
        with os.scandir(self.faces) as entries:
            return next(entries, None) is not None

    def remove_orphans(self, store: CorpusStore) -> None:
        """Remove crops and copies that are not among a store's names, and what a kill left."""
        if not self.faces.is_dir():
            return
        with os.scandir(self.faces) as entries:
            for entry in entries:
                name = os.fsencode(entry.name).decode(errors="replace")
                kept = store.value("SELECT 1 FROM names WHERE name = ?", (name,))
                if entry.is_file() and not kept:
                    Path(entry.path).unlink()


def _note(store: CorpusStore, row: dict[str, Any]) -> None:
    values = bytes.fromhex(row["image_id"]), json.dumps(row)
    store.run("INSERT OR REPLACE INTO findings VALUES (?, ?)", values)
