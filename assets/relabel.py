"""The mixture's labels of every face."""

from assets.checking import table_check
from assets.running import stage_asset

moe_labels = stage_asset(
    "moe_labels",
    "relabel",
    deps=["ffhq_predictions", "caf_predictions"],
    group="labels",
    cost="Seconds; no network runs.",
    kinds={"python", "parquet"},
)
moe_labels_check = table_check("moe_labels", "labels")
