"""What each expert reads from each face."""

from assets.checking import table_check
from assets.running import stage_asset

_COST = "One pass of every expert over every new face."

ffhq_predictions = stage_asset(
    "ffhq_predictions",
    "predict",
    what="What each expert reads from each FFHQ-Aging face: age, standard deviation, "
    "distribution over 0-100 years; failures with their reason (table `predictions`).",
    deps=["ffhq_images", "experts"],
    group="labels",
    cost=_COST,
    over="ffhq",
    gpu=True,
    kinds={"pytorch", "parquet"},
)
caf_predictions = stage_asset(
    "caf_predictions",
    "predict",
    what="What each expert reads from each CAF face: age, standard deviation, distribution "
    "over 0-100 years; failures with their reason (table `predictions`).",
    deps=["caf_images", "experts"],
    group="labels",
    cost=_COST,
    over="shards",
    gpu=True,
    kinds={"pytorch", "parquet"},
)
ffhq_predictions_check = table_check("ffhq_predictions", "predictions", over="ffhq")
caf_predictions_check = table_check("caf_predictions", "predictions", over="caf")
