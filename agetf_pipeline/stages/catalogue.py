"""The stages by name and in order: what the command line and Dagster run."""

import importlib
from dataclasses import dataclass
from typing import Literal

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.workspace import Workspace, is_caf
from agetf_pipeline.stages.base import StageReport
from agetf_pipeline.stages.names import STAGE_SUMMARIES

Partitioning = Literal["none", "all", "caf"]


@dataclass(frozen=True)
class StageInfo:
    """One stage: its verb, which partitions it runs over, and what it does in a line."""

    name: str
    partitioning: Partitioning
    summary: str


_PARTITIONING: dict[str, Partitioning] = {
    "ingest": "all",
    "predict": "all",
    "filter": "all",
    "caption": "all",
    "enhance": "caf",
    "recheck": "caf",
}

STAGES: tuple[StageInfo, ...] = tuple(
    StageInfo(name, _PARTITIONING.get(name, "none"), summary)
    for name, summary in STAGE_SUMMARIES.items()
)

_BY_NAME = {stage.name: stage for stage in STAGES}


def stage_info(name: str) -> StageInfo:
    """Return a stage by its verb.

    Raises:
        StageError: There is no such stage.
    """
    if name not in _BY_NAME:
        raise StageError(f"Expected a stage, one of {', '.join(_BY_NAME)}; found {name!r}.")
    return _BY_NAME[name]


def select_partitions(info: StageInfo, partitions: list[str]) -> list[str | None]:
    """Return those of the workspace's partitions that a stage runs over; [None] for one run."""
    if info.partitioning == "none":
        return [None]
    return [p for p in partitions if info.partitioning == "all" or is_caf(p)]


def run_stage(
    name: str, config: PipelineConfig, workspace: Workspace, partition: str | None = None
) -> StageReport:
    """Run one stage, on one partition where it has them.

    Heavy packages are imported here, by the stage's module and what it calls.

    Raises:
        AgetfError: The stage cannot run or had to stop; the message says why and what to do.
    """
    info = stage_info(name)
    if (info.partitioning == "none") != (partition is None):
        raise StageError(
            f"Expected {'no partition' if info.partitioning == 'none' else 'a partition'} for "
            f"stage '{name}'; found {partition!r}."
        )
    from agetf_pipeline.data.hands import with_hands
    from agetf_pipeline.stages.joining import hands_of

    run = importlib.import_module(f"agetf_pipeline.stages.{name}").run
    if partition is None:
        return run(config, workspace)
    config, hands = hands_of(name, config, workspace, partition)
    with with_hands(hands):
        return run(config, workspace, partition)
