"""The four age experts."""

from assets.checking import network_check
from assets.running import stage_asset

experts = stage_asset(
    "experts",
    "train_experts",
    what="The four readers of age: Janus-Pro, MiVOLO, ResNet50 and VGG16. Their weights, "
    "trained here or verified where configured.",
    deps=["ffhq_images", "caf_images"],
    group="labels",
    cost="Trains tiny networks in minutes; with configured weights it only verifies them.",
    gpu=True,
    kinds={"pytorch"},
)
experts_check = network_check("experts", "train_experts")
