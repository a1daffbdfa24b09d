"""The readable photographs of both corpora, and the quarantine."""

from assets.checking import table_check
from assets.running import stage_asset

_COST = "Decodes every new file once; CPU only."

ffhq_images = stage_asset(
    "ffhq_images",
    "ingest",
    deps=["synthetic_corpus"],
    group="corpus",
    cost=_COST,
    over="ffhq",
    kinds={"python", "parquet"},
)
caf_images = stage_asset(
    "caf_images",
    "ingest",
    deps=["synthetic_corpus"],
    group="corpus",
    cost=_COST,
    over="shards",
    kinds={"python", "parquet"},
)
ffhq_images_check = table_check("ffhq_images", "images", over="ffhq")
caf_images_check = table_check("caf_images", "images", over="caf")
