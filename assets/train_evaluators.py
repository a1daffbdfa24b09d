"""The networks that only evaluation may use."""

from assets.checking import network_check
from assets.running import stage_asset

evaluators = stage_asset(
    "evaluators",
    "train_evaluators",
    what="The networks that only evaluation may use: age, identity and attributes, trained on "
    "faces that nothing else saw, so that no model is judged by its own teacher.",
    deps=["caf_images"],
    group="evaluation",
    cost="Trains two small networks; with configured weights it only verifies them.",
    gpu=True,
    kinds={"pytorch"},
)
evaluators_check = network_check("evaluators", "train_evaluators")
