"""The guards after enhancement: age, identity, sharpness and colour, before and after."""

from assets.checking import table_check
from assets.running import stage_asset

caf_enhanced_ages = stage_asset(
    "caf_enhanced_ages",
    "recheck",
    what="The guards after enhancement: age, identity, sharpness and colour before and after, "
    "and which faces changed too much (table `enhanced_ages`).",
    deps=["caf_enhanced", "moe_labels"],
    group="enhancement",
    cost="One pass of every expert, and of the identity model if any, over new enhanced faces.",
    over="shards",
    gpu=True,
    kinds={"pytorch", "parquet"},
)
caf_enhanced_ages_check = table_check("caf_enhanced_ages", "enhanced_ages", over="caf")
