"""The files for others."""

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace
from assets.checking import suite_check
from assets.running import stage_asset

release_files = stage_asset(
    "release_files",
    "release",
    what="The files for others: relabelled metadata, identity splits, statistics, cards, "
    "Croissant metadata and checksums. No photographs unless asked for.",
    deps=["registered_model"],
    group="release",
    cost="Label metadata, identity splits, statistics, cards and checksums; seconds.",
    kinds={"parquet"},
)


def _judge(config: PipelineConfig, workspace: Workspace, name: str):
    from agetf_pipeline.quality.gates import check_release

    return check_release(config, workspace, name)


release_check = suite_check(
    "release_files",
    "complete",
    "Every checksum is verified, no file is unlisted, and the Croissant metadata is valid.",
    _judge,
)
