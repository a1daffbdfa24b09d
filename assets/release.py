"""The files for others."""

from assets.running import stage_asset

release_files = stage_asset(
    "release_files",
    "release",
    deps=["registered_model"],
    group="release",
    cost="Label metadata, identity splits, statistics, cards and checksums; seconds.",
    kinds={"parquet"},
)
