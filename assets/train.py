"""The AgeTransformer."""

from assets.checking import network_check
from assets.freshness import MODEL
from assets.running import stage_asset

age_transformer = stage_asset(
    "age_transformer",
    "train",
    what="The AgeTransformer: renders a face at any age, ten ages from one encoder pass. Its "
    "weights (EMA), loss curves and samples.",
    deps=["training_manifest", "guidance_networks"],
    group="training",
    cost="The longest step: minutes at 64 px on a CPU, days at 256 px and above on a GPU.",
    gpu=True,
    kinds={"pytorch"},
    freshness=MODEL,
)
age_transformer_check = network_check("age_transformer", "train")
