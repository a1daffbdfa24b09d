"""The four age experts."""

from assets.running import stage_asset

experts = stage_asset(
    "experts",
    "train_experts",
    deps=["ffhq_images", "caf_images"],
    group="labels",
    cost="Trains tiny networks in minutes; with configured weights it only verifies them.",
    gpu=True,
    kinds={"pytorch"},
)
