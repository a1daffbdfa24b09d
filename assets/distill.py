"""The frozen networks that guide training."""

from assets.running import stage_asset

guidance_networks = stage_asset(
    "guidance_networks",
    "distill",
    deps=["training_manifest"],
    group="training",
    cost="Trains two small networks.",
    gpu=True,
    kinds={"pytorch"},
)
