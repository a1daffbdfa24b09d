"""Which corpora are on disk, and where: the partitions that the pipeline runs over."""

from pathlib import Path

from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.workspace import (
    FFHQ_PARTITION,
    Workspace,
    caf_partition,
    is_caf,
    shard_of,
)
from agetf_pipeline.data.caf import MANIFEST_NAME
from agetf_pipeline.data.ffhq_aging import LABELS_NAME
from agetf_pipeline.data.listing import has_files


def ffhq_folder(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the folder of the FFHQ-Aging images (it need not exist)."""
    return config.ingest.ffhq_aging.path or workspace.raw_ffhq


def caf_folder(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the folder that holds the CAF shards, a folder each (it need not exist)."""
    return config.ingest.caf.path or workspace.raw_caf


def source_folder(config: PipelineConfig, workspace: Workspace, partition: str) -> Path:
    """Return the folder that a partition's images are read from (it need not exist).

    Raises:
        DataError: The name is neither `ffhq_aging` nor that of a CAF shard, `caf/<shard>`.
    """
    if partition == FFHQ_PARTITION:
        return ffhq_folder(config, workspace)
    if not is_caf(partition):
        raise DataError(
            f"Expected partition '{FFHQ_PARTITION}' or 'caf/<shard>'; found {partition!r}."
        )
    # Through caf_partition, so that no name from outside can climb out of the folder.
    shard = shard_of(caf_partition(shard_of(partition)))
    return caf_folder(config, workspace) / shard


def list_shards(config: PipelineConfig, workspace: Workspace) -> list[str]:
    """Return the names of the CAF shards on disk, sorted: every folder that is not hidden.

    A shard without a manifest is listed too: reading it fails, with the reason.

    Raises:
        DataError: A folder's name cannot be a partition's, or the folder is itself one shard.
    """
    folder = caf_folder(config, workspace)
    if not folder.is_dir():
        return []
    if (folder / MANIFEST_NAME).is_file():
        raise DataError(
            f"Expected a folder of CAF shards at {folder}; found a {MANIFEST_NAME} in it, so it is "
            f"itself one shard. Set ingest.caf.path to {folder.parent}, or move the shard into a "
            "folder of its own below."
        )
    shards = [
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    ]
    for shard in shards:
        caf_partition(shard)
    return sorted(shards)


def discover_partitions(config: PipelineConfig, workspace: Workspace) -> list[str]:
    """Return the partitions that have files on disk: `ffhq_aging` first, then `caf/<shard>` sorted.

    Raises:
        DataError: See `list_shards`.
    """
    folder = ffhq_folder(config, workspace)
    found = [FFHQ_PARTITION] if has_files(folder, besides=(LABELS_NAME,)) else []
    return found + [caf_partition(shard) for shard in list_shards(config, workspace)]


def require_partitions(config: PipelineConfig, workspace: Workspace) -> list[str]:
    """Return `discover_partitions`, which must not be empty.

    Raises:
        StageError: There is no corpus at all; the message says where to put one.
    """
    partitions = discover_partitions(config, workspace)
    if not partitions:
        raise StageError(
            f"Expected images in {ffhq_folder(config, workspace)} (FFHQ-Aging: images and, if you "
            f"have it, {LABELS_NAME}) or CAF shards in {caf_folder(config, workspace)} (a folder "
            f"each, with images and a {MANIFEST_NAME} of path,subject,age); found neither. Put the "
            "files there, or point ingest.ffhq_aging.path and ingest.caf.path at them."
        )
    return partitions
