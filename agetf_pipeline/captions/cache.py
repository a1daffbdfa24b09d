"""Reading the caption cache: words of the current version, and any embedding at once.

The Parquet table `captions` is what counts. Beside it lies, per partition and version, an Arrow
file made from it: embeddings as fixed-size lists of float16, uncompressed, mapped into memory, so
that an image's embedding is one look-up and one copy, whatever the size of the corpus, and worker
processes share the pages.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa

from agetf_pipeline.captions.versions import CaptionVersion, cache_folder
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path, remove_temporary_files
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import CAPTIONS
from agetf_pipeline.data.streaming import SortedTable
from agetf_pipeline.data.tables import list_partitions, table_path

EmbeddingKind = Literal["image", "text"]

_EMBEDDINGS = ("image_embedding", "text_embedding")
_FORMAT = b"1"
WORDS = [name for name in CAPTIONS.schema.names if name not in _EMBEDDINGS]
"""Columns of the table without the embeddings."""


def of_version(version: CaptionVersion) -> pl.Expr:
    """Return the condition that a row of the table `captions` is of a version."""
    return (pl.col("model_version") == version.model_version) & (
        pl.col("prompt_hash") == version.prompt_hash
    )


def read_captions(
    workspace: Workspace, partition: str, version: CaptionVersion, columns: list[str] | None = None
) -> pl.DataFrame:
    """Read a partition's captions of one version, without embeddings unless they are named.

    A partition that is not there has none.

    Raises:
        DataError: The table is damaged or of another schema.
    """
    wanted = columns or WORDS
    read = list(dict.fromkeys([*CAPTIONS.key, *wanted]))
    path = table_path(workspace, CAPTIONS, partition)
    frames = [pl.from_arrow(CAPTIONS.schema.empty_table().select(read))]
    if path.exists():
        frames += [rows.filter(of_version(version)) for rows in _slices(path, read)]
    return pl.concat(frames).select(wanted)  # type: ignore[arg-type]


def index_path(workspace: Workspace, partition: str, version: CaptionVersion) -> Path:
    """Return the file that maps a partition's embeddings of one version into memory."""
    return cache_folder(workspace) / "embeddings" / partition / f"{version.name}.arrow"


def ensure_index(workspace: Workspace, partition: str, version: CaptionVersion) -> Path | None:
    """Make a partition's index of embeddings, unless it is there and was made of the same table.

    Returns:
        Its file; None where the partition has no embedding of the version.

    Raises:
        DataError: The table is damaged, or holds embeddings of different widths.
    """
    path, table = index_path(workspace, partition, version), table_path(
        workspace, CAPTIONS, partition
    )  # fmt: skip
    if not table.exists():
        return None
    source = hash_file(table)
    if index_source(path) == source:
        return path
    locks = workspace.state / "locks" / "embeddings"
    with exclusive_lock(locks / f"{partition}.lock", f"embeddings of {partition}"):
        remove_temporary_files(path.parent)
        return _write_index(path, table, version, source.encode())


def _write_index(path: Path, table: Path, version: CaptionVersion, source: bytes) -> Path | None:
    slices = _embedded(table, version)
    first = next(slices, None)
    if first is None:
        path.unlink(missing_ok=True)
        return None
    width = len(first["image_embedding"][0])
    schema = _index_schema(width, source)
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        for rows in (first, *slices):
            writer.write_batch(_batch(rows, width, schema, table))
    return path


class EmbeddingStore:
    """Embeddings of many images, mapped into memory; look-ups take the same time at any size.

    It can be handed to worker processes: each maps the files itself, and the pages are shared.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Map the files of `ensure_index`. An image in several of them counts in the first.

        Raises:
            DataError: A file is damaged, or two have embeddings of different widths.
        """
        self.files = tuple(files)
        self._matrices: dict[str, list[np.ndarray]] = {name: [] for name in _EMBEDDINGS}
        self._row_of: dict[str, int] = {}
        ends: list[int] = []
        for file in self.files:
            for batch in _mapped(file):
                start = ends[-1] if ends else 0
                for place, image_id in enumerate(batch.column("image_id").to_pylist()):
                    self._row_of.setdefault(image_id, start + place)
                for name, matrices in self._matrices.items():
                    column = batch.column(name)
                    width = column.type.list_size
                    matrices.append(column.values.to_numpy(zero_copy_only=True).reshape(-1, width))
                ends.append(start + batch.num_rows)
        self._starts = np.array([0, *ends[:-1]] if ends else [], np.int64)
        widths = {matrix.shape[1] for matrix in self._matrices["image_embedding"]}
        if len(widths) > 1:
            raise DataError(
                f"Expected embeddings of one width; found {sorted(widths)}: they come from "
                "different models. Run the stage `caption` on every partition with the same "
                "configuration."
            )
        self.width = next(iter(widths), 0)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._row_of

    def __getstate__(self) -> tuple[Path, ...]:
        return self.files

    def __setstate__(self, files: tuple[Path, ...]) -> None:
        self.__init__(files)

    @property
    def image_ids(self) -> list[str]:
        """The images, as they lie in the files."""
        return list(self._row_of)

    def rows(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the row of each image, int64 (N,), -1 where it has none; for `take`."""
        return np.array([self._row_of.get(image_id, -1) for image_id in image_ids], np.int64)

    def take(self, rows: np.ndarray, kind: EmbeddingKind = "image") -> np.ndarray:
        """Return the embeddings of rows, float16 (N, D); NaN where a row is -1 or has none."""
        rows = np.asarray(rows, np.int64)
        values = np.full((len(rows), self.width), np.nan, np.float16)
        batches = np.searchsorted(self._starts, rows, side="right") - 1
        matrices = self._matrices[f"{kind}_embedding"]
        for batch in np.unique(batches[rows >= 0]):
            chosen = np.flatnonzero((batches == batch) & (rows >= 0))
            values[chosen] = matrices[batch][rows[chosen] - self._starts[batch]]
        return values

    def of(self, image_ids: Sequence[str], kind: EmbeddingKind = "image") -> np.ndarray:
        """Return the embeddings of images, float16 (N, D), in their order.

        Raises:
            DataError: An image has none.
        """
        rows = self.rows(image_ids)
        values = self.take(rows, kind)
        missing = np.flatnonzero(np.isnan(values).any(axis=1)) if self.width else range(len(rows))
        if len(missing):
            raise DataError(
                f"Expected {kind} embeddings of {len(rows)} images; {len(missing)} have none, the "
                f"first {image_ids[missing[0]]}. Run the stage `caption` on their partitions."
            )
        return values


def open_embeddings(
    workspace: Workspace, version: CaptionVersion, partitions: list[str] | None = None
) -> EmbeddingStore:
    """Open the embeddings of one version; indexes that are not there are made.

    Args:
        workspace: The workspace.
        version: Which captions are meant.
        partitions: Partitions of the table `captions`; None: all that exist.

    Raises:
        DataError: A table or an index is damaged, or embeddings have different widths.
    """
    names = list_partitions(workspace, CAPTIONS) if partitions is None else partitions
    files = [ensure_index(workspace, name, version) for name in names]
    return EmbeddingStore([file for file in files if file is not None])


def _slices(path: Path, columns: list[str]) -> Iterator[pl.DataFrame]:
    return SortedTable(path, CAPTIONS).slices(columns)


def _embedded(table: Path, version: CaptionVersion) -> Iterator[pl.DataFrame]:
    """Yield the version's rows that have an embedding, a row group of the table at a time."""
    for rows in _slices(table, [*CAPTIONS.key, *_EMBEDDINGS]):
        found = rows.filter(of_version(version) & pl.col("image_embedding").is_not_null())
        if found.height:
            yield found.select("image_id", *_EMBEDDINGS)


def _index_schema(width: int, source: bytes) -> pa.Schema:
    values = pa.list_(pa.float16(), width)
    fields = [pa.field("image_id", pa.string(), False), *(pa.field(n, values) for n in _EMBEDDINGS)]
    return pa.schema(fields, {b"format": _FORMAT, b"source_sha256": source})


def _batch(rows: pl.DataFrame, width: int, schema: pa.Schema, table: Path) -> pa.RecordBatch:
    columns = [pa.array(rows["image_id"].to_list(), pa.string())]
    for name in _EMBEDDINGS:
        column = rows[name]
        missing = column.is_null().to_numpy()
        widths = set(column.drop_nulls().list.len().to_list()) - {width}
        if widths:
            raise DataError(
                f"Expected {name}s of {width} values in {table}; found {sorted(widths)}, too. "
                "The table was written by something else: delete it and run the stage `caption`."
            )
        matrix = np.full((rows.height, width), np.nan, np.float16)
        matrix[~missing] = (
            column.drop_nulls().explode().to_numpy().astype(np.float16).reshape(-1, width)
        )
        columns.append(
            pa.FixedSizeListArray.from_arrays(
                pa.array(matrix.reshape(-1)), width, mask=pa.array(missing)
            )
        )
    return pa.record_batch(columns, schema=schema)


def index_source(path: Path) -> str | None:
    """Return the sha256 of the table that an index was made of; None where there is no index."""
    try:
        with pa.memory_map(str(path)) as source:
            metadata = pa.ipc.open_file(source).schema.metadata or {}
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    if metadata.get(b"format") != _FORMAT:
        return None
    return metadata.get(b"source_sha256", b"").decode("ascii", "replace") or None


def _mapped(path: Path) -> list[pa.RecordBatch]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        return [reader.get_batch(place) for place in range(reader.num_record_batches)]
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"Expected an Arrow file of embeddings at {path}; found: {error}. Delete it: it is "
            "made again from the captions."
        ) from error
