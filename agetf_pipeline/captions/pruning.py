"""Which versions of captions the cache holds, and taking out those that are not in use."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from agetf_pipeline.captions.cache import ensure_index, of_version
from agetf_pipeline.captions.origin import origin_path, recorded_origin
from agetf_pipeline.captions.versions import CaptionVersion, cache_folder, recorded_version
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.incremental import update_table
from agetf_pipeline.data.schemas import CAPTIONS
from agetf_pipeline.data.streaming import SortedTable
from agetf_pipeline.data.tables import list_partitions, table_path


@dataclass(frozen=True)
class StoredVersion:
    """One version of the cache.

    Attributes:
        version: Model and request.
        prompt: What was asked; None where there is no row.
        trained_on: What the network was trained on; None: not recorded.
        num_images: Rows by partition.
        num_usable: Rows with a caption, of all partitions.
        index_bytes: Embeddings mapped into memory.
        grid_bytes: Image features before pooling, which versions of one model share.
        in_use: Whether readers go by it.
    """

    version: CaptionVersion
    prompt: str | None
    trained_on: str | None
    num_images: dict[str, int]
    num_usable: int
    index_bytes: int
    grid_bytes: int
    in_use: bool


def list_versions(workspace: Workspace) -> list[StoredVersion]:
    """Return the versions that have captions, and the one in use; that one first.

    Raises:
        DataError: A table or the record of the version in use is damaged.
    """
    used = recorded_version(workspace)
    keys = ["model_version", "prompt_hash"]
    found = {} if used is None else {(used.model_version, used.prompt_hash): _Tally({}, 0, None)}
    for partition in list_partitions(workspace, CAPTIONS):
        table = SortedTable(table_path(workspace, CAPTIONS, partition), CAPTIONS)
        for rows in table.slices([*keys, "prompt", "status"]):
            ok = (pl.col("status") == "ok").sum()
            groups = rows.group_by(keys).agg(pl.len(), ok=ok, prompt=pl.first("prompt"))
            for its in groups.iter_rows(named=True):
                key = (its["model_version"], its["prompt_hash"])
                tally = found.setdefault(key, _Tally({}, 0, None))
                num = tally.num_images.get(partition, 0) + its["len"]
                tally.num_images[partition] = num
                tally.num_usable += its["ok"]
                tally.prompt = its["prompt"]
    stored = [_stored(workspace, CaptionVersion(*key), tally, used) for key, tally in found.items()]
    return sorted(stored, key=lambda its: (not its.in_use, its.version.name))


def prune(workspace: Workspace) -> CaptionVersion:
    """Remove the rows and cached files of every version but the one in use; return that one.

    A partition's table is replaced whole or not at all, and is then the file that the stage would
    have written if it had never worked under another version. Killed in between, run it again.

    Raises:
        DataError: A table is damaged, or no version is in use.
        StageError: The stage `caption` was killed in a partition and has rows outside the table.
    """
    used = version_in_use(workspace)
    for partition in list_partitions(workspace, CAPTIONS):
        what = f"caption {partition}"
        with exclusive_lock(workspace.state / "locks" / "stages" / f"{what}.lock", what):
            _prune_table(workspace, partition, used)
            ensure_index(workspace, partition, used)
    for path in stale_files(workspace, used):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return used


def version_in_use(workspace: Workspace) -> CaptionVersion:
    """Return the version that readers go by.

    Raises:
        DataError: There is none.
    """
    used = recorded_version(workspace)
    if used is None:
        raise DataError(
            f"Expected captions in {cache_folder(workspace)}; found none in use. Run the stage "
            "`caption` first."
        )
    return used


def stale_files(workspace: Workspace, used: CaptionVersion) -> list[Path]:
    """Return what the cache holds of versions that are not in use: files, and folders of grids."""
    folder = cache_folder(workspace)
    indexes = (p for p in folder.glob("embeddings/**/*.arrow") if p.stem != used.name)
    grids = (p for p in folder.glob("token_grids/*") if p.name != used.model_version)
    notes = folder.glob("models/*.json")
    kept_note = origin_path(workspace, used.model_version)
    return sorted([*indexes, *grids, *(p for p in notes if p != kept_note)])


def size_of(paths: Sequence[Path]) -> int:
    """Return the bytes of files and of everything in folders."""
    files = [f for p in paths for f in ((p,) if p.is_file() else p.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())


@dataclass
class _Tally:
    num_images: dict[str, int]
    num_usable: int
    prompt: str | None


def _stored(
    workspace: Workspace, version: CaptionVersion, tally: _Tally, used: CaptionVersion | None
) -> StoredVersion:
    folder = cache_folder(workspace)
    indexes = list(folder.glob(f"embeddings/**/{version.name}.arrow"))
    return StoredVersion(
        version,
        tally.prompt,
        recorded_origin(workspace, version.model_version),
        dict(sorted(tally.num_images.items())),
        tally.num_usable,
        size_of(indexes),
        size_of([folder / "token_grids" / version.model_version]),
        version == used,
    )


def _prune_table(workspace: Workspace, partition: str, used: CaptionVersion) -> None:
    parts = workspace.state / "parts" / CAPTIONS.name / partition
    if any(parts.glob("*.parquet")):
        raise StageError(
            f"Expected the captions of {partition} in their table; found rows in {parts} that a "
            "killed run left. Run the stage `caption` on it first, which takes them over."
        )
    table = SortedTable(table_path(workspace, CAPTIONS, partition), CAPTIONS)
    schema = dict.fromkeys(CAPTIONS.key, pl.String)
    slices = [rows.filter(of_version(used)) for rows in table.slices(list(CAPTIONS.key))]
    wanted = pl.concat(slices) if slices else pl.DataFrame(schema=schema)

    def refuse(_: pl.DataFrame) -> pl.DataFrame:
        raise AssertionError("pruning computes nothing")

    update_table(
        workspace, CAPTIONS, partition, wanted, refuse, 1, f"prune captions of {partition}"
    )
