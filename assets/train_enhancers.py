"""The colouriser and the super-resolver."""

from assets.running import stage_asset

enhancers = stage_asset(
    "enhancers",
    "train_enhancers",
    deps=["ffhq_images"],
    group="enhancement",
    cost="Trains tiny networks in a minute; with configured weights it only verifies them.",
    gpu=True,
    kinds={"pytorch"},
)
