"""The colouriser and the super-resolver."""

from assets.checking import network_check
from assets.running import stage_asset

enhancers = stage_asset(
    "enhancers",
    "train_enhancers",
    what="DDColor, which colours grey photographs, and ESRGAN, which sharpens small ones. "
    "Their weights, trained here or verified where configured.",
    deps=["ffhq_images"],
    group="enhancement",
    cost="Trains tiny networks in a minute; with configured weights it only verifies them.",
    gpu=True,
    kinds={"pytorch"},
)
enhancers_check = network_check("enhancers", "train_enhancers")
