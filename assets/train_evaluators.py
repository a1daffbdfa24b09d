"""The networks that only evaluation may use."""

from assets.running import stage_asset

evaluators = stage_asset(
    "evaluators",
    "train_evaluators",
    deps=["caf_images"],
    group="evaluation",
    cost="Trains two small networks; with configured weights it only verifies them.",
    gpu=True,
    kinds={"pytorch"},
)
