"""Which images training may use."""

from assets.checking import table_check
from assets.running import stage_asset

keep_list = stage_asset(
    "keep_list",
    "filter",
    what="Which images training may use, with every reason against those that it may not, and "
    "their curriculum weight (table `keep_list`).",
    deps=["moe_labels"],
    group="labels",
    cost="Seconds; no network runs.",
    over="all",
    kinds={"python", "parquet"},
)
keep_list_check = table_check("keep_list", "keep_list")
