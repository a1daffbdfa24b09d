"""Where everything lies: the folders under one workspace root, and the names of partitions."""

import re
from dataclasses import dataclass
from pathlib import Path

from agetf_pipeline.core.errors import DataError

FFHQ_PARTITION = "ffhq_aging"
CAF_PREFIX = "caf/"
_SHARD_NAME = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


def is_shard_name(name: str) -> bool:
    """Whether a folder's name can be a partition's: 1-64 letters, digits, `-` or `_`."""
    return _SHARD_NAME.fullmatch(name) is not None


def caf_partition(shard: str) -> str:
    """Return the partition name of a CAF shard, `caf/<shard>`.

    Raises:
        DataError: The shard's name is not 1-64 letters, digits, `-` or `_`.
    """
    if not is_shard_name(shard):
        raise DataError(
            f"Expected a shard folder named with 1-64 letters, digits, '-' or '_'; found {shard!r}."
            " Rename the folder."
        )
    return f"{CAF_PREFIX}{shard}"


def shard_of(partition: str) -> str:
    """Return the shard's name of a CAF partition (the inverse of `caf_partition`)."""
    if not partition.startswith(CAF_PREFIX):
        raise DataError(f"Expected a CAF partition such as 'caf/shard-0000'; found {partition!r}.")
    return partition.removeprefix(CAF_PREFIX)


def is_caf(partition: str) -> bool:
    """Whether a partition is a CAF shard."""
    return partition.startswith(CAF_PREFIX)


@dataclass(frozen=True)
class Workspace:
    """The folders of one workspace. Paths inside tables are relative to `root`, with `/`."""

    root: Path

    @property
    def raw_ffhq(self) -> Path:
        """Default place of the FFHQ-Aging images and label CSV."""
        return self.root / "data" / "raw" / "ffhq_aging"

    @property
    def raw_caf(self) -> Path:
        """Default place of the CAF shards, a folder each."""
        return self.root / "data" / "raw" / "caf"

    @property
    def truth(self) -> Path:
        """Truth of a synthetic corpus: read by evaluation and tests alone."""
        return self.root / "data" / "truth"

    @property
    def processed(self) -> Path:
        """Files made from the raw ones: label exports, face crops, enhanced images."""
        return self.root / "data" / "processed"

    @property
    def tables(self) -> Path:
        """Parquet tables, `<table>/<partition>.parquet`."""
        return self.root / "data" / "tables"

    @property
    def stats(self) -> Path:
        """Reports over corpora, and the report of each stage."""
        return self.root / "stats"

    @property
    def models(self) -> Path:
        """Trained networks and calibrations."""
        return self.root / "models"

    @property
    def experiments(self) -> Path:
        """One folder a training run."""
        return self.root / "outputs" / "experiments"

    @property
    def forgotten(self) -> Path:
        """What was forgotten and must not come back; not to be deleted."""
        return self.root / "data" / "forgotten.json"

    @property
    def state(self) -> Path:
        """Locks, part files and checkpoints of unfinished work. Safe to delete when idle."""
        return self.root / "data" / ".state"

    def relative(self, path: Path) -> str:
        """Return `path` relative to the root, with `/`; absolute where it lies outside."""
        resolved, root = path.resolve(), self.root.resolve()
        return (
            resolved.relative_to(root) if resolved.is_relative_to(root) else resolved
        ).as_posix()

    def resolve(self, relative: str) -> Path:
        """Return the file that a table's path names."""
        return self.root / relative
