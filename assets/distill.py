"""The frozen networks that guide training."""

from assets.checking import network_check
from assets.running import stage_asset

guidance_networks = stage_asset(
    "guidance_networks",
    "distill",
    what="The frozen networks that guide training: an age regressor distilled from the "
    "mixture, and an identity embedder. Evaluation never uses them.",
    deps=["training_manifest"],
    group="training",
    cost="Trains two small networks.",
    gpu=True,
    kinds={"pytorch"},
)
guidance_networks_check = network_check("guidance_networks", "distill")
