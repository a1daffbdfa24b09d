"""The AgeTransformer."""

from assets.freshness import MODEL
from assets.running import stage_asset

age_transformer = stage_asset(
    "age_transformer",
    "train",
    deps=["training_manifest", "guidance_networks"],
    group="training",
    cost="The longest step: minutes at 64 px on a CPU, days at 256 px and above on a GPU.",
    gpu=True,
    kinds={"pytorch"},
    freshness=MODEL,
)
