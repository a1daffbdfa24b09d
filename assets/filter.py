"""Which images training may use."""

from assets.checking import table_check
from assets.running import stage_asset

keep_list = stage_asset(
    "keep_list",
    "filter",
    deps=["moe_labels"],
    group="labels",
    cost="Seconds; no network runs.",
    over="all",
    kinds={"python", "parquet"},
)
keep_list_check = table_check("keep_list", "keep_list")
