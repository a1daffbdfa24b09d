"""The age before and after enhancement."""

from assets.checking import table_check
from assets.running import stage_asset

caf_enhanced_ages = stage_asset(
    "caf_enhanced_ages",
    "recheck",
    deps=["caf_enhanced", "moe_labels"],
    group="enhancement",
    cost="One pass of every expert over every new enhanced face.",
    over="shards",
    gpu=True,
    kinds={"pytorch", "parquet"},
)
caf_enhanced_ages_check = table_check("caf_enhanced_ages", "enhanced_ages", over="caf")
