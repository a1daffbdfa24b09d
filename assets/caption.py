"""Captions and embeddings of every face."""

from assets.checking import table_check
from assets.running import stage_asset

_COST = "Generates a caption for every new face."

ffhq_captions = stage_asset(
    "ffhq_captions",
    "caption",
    deps=["ffhq_images", "experts"],
    group="captions",
    cost=_COST,
    over="ffhq",
    gpu=True,
    kinds={"pytorch", "parquet"},
)
caf_captions = stage_asset(
    "caf_captions",
    "caption",
    deps=["caf_images", "experts"],
    group="captions",
    cost=_COST,
    over="shards",
    gpu=True,
    kinds={"pytorch", "parquet"},
)
ffhq_captions_check = table_check("ffhq_captions", "captions", over="ffhq")
caf_captions_check = table_check("caf_captions", "captions", over="caf")
