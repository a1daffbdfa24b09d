"""Which corpora are on disk, and where: the partitions that the pipeline runs over."""

import logging
import os
from pathlib import Path

from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.workspace import (
    FFHQ_PARTITION,
    Workspace,
    caf_partition,
    is_caf,
    is_shard_name,
    shard_of,
)
from agetf_pipeline.data.caf import MANIFEST_NAME
from agetf_pipeline.data.ffhq_aging import LABELS_NAME
from agetf_pipeline.data.listing import has_files

_LOGGER = logging.getLogger(__name__)


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


def list_shard_folders(config: PipelineConfig, workspace: Workspace) -> tuple[list[str], list[str]]:
    """Return the folders of CAF shards on disk, sorted: every one that is not hidden.

    Returns:
        Those that can be partitions, and those whose names cannot (see `is_shard_name`).

    Raises:
        DataError: The folder cannot be listed, or is itself one shard.
    """
    folder = caf_folder(config, workspace)
    if not folder.is_dir():
        return [], []
    if (folder / MANIFEST_NAME).is_file():
        raise DataError(
            f"Expected a folder of CAF shards at {folder}; found a {MANIFEST_NAME} in it, so it is "
            f"itself one shard. Set ingest.caf.path to {folder.parent}, or move the shard into a "
            "folder of its own below."
        )
    try:
        names = sorted(
            entry.name
            for entry in os.scandir(folder)
            if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError as error:
        raise DataError(
            f"Expected to list {folder}; found: {error.strerror}. Grant the right to read it."
        ) from error
    fitting = [name for name in names if is_shard_name(name)]
    return fitting, [name for name in names if not is_shard_name(name)]


def list_shards(config: PipelineConfig, workspace: Workspace) -> list[str]:
    """Return the names of the CAF shards on disk, sorted.

    A shard without a manifest is listed too: reading it fails, with the reason. A folder whose name
    cannot be a partition's is left out, with a warning: it does not stop the others.

    Raises:
        DataError: See `list_shard_folders`.
    """
    shards, bad_names = list_shard_folders(config, workspace)
    if bad_names:
        _LOGGER.warning(
            "left out of the CAF shards, since a shard is named with 1-64 letters, digits, '-' or "
            "'_': %s. Rename the folders.",
            ", ".join(map(repr, bad_names)),
        )
    return shards


def discover_partitions(config: PipelineConfig, workspace: Workspace) -> list[str]:
    """Return the partitions that have files on disk: `ffhq_aging` first, then `caf/<shard>` sorted.

    Raises:
        DataError: See `list_shards`.
    """
    folder = ffhq_folder(config, workspace)
    found = [FFHQ_PARTITION] if has_files(folder, besides=(LABELS_NAME,)) else []
    return found + [caf_partition(shard) for shard in list_shards(config, workspace)]


def still_on_disk(config: PipelineConfig, workspace: Workspace, partitions: list[str]) -> list[str]:
    """Return the partitions without the CAF shards whose folders were removed.

    Where the folder of all shards is not there, none was removed: it cannot be read.
    """
    if not caf_folder(config, workspace).is_dir():
        return partitions
    return [
        partition
        for partition in partitions
        if not is_caf(partition) or source_folder(config, workspace, partition).is_dir()
    ]


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
