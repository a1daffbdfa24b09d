"""Captions and embeddings of every face."""

from agetf_pipeline.config import PipelineConfig
from assets.checking import table_check
from assets.running import stage_asset

_COST = "Generates a caption for every new face."

ffhq_captions = stage_asset(
    "ffhq_captions",
    "caption",
    what="A caption of each FFHQ-Aging face without words of age, and embeddings of picture "
    "and caption (table `captions` and the embedding cache).",
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
    what="A caption of each CAF face without words of age, and embeddings of picture and "
    "caption (table `captions` and the embedding cache).",
    deps=["caf_images", "experts"],
    group="captions",
    cost=_COST,
    over="shards",
    gpu=True,
    kinds={"pytorch", "parquet"},
)


def _configured_rules(config: PipelineConfig):
    from agetf_pipeline.quality.caption_rules import configured_caption_rules

    return configured_caption_rules(config.caption.checks)


ffhq_captions_check = table_check("ffhq_captions", "captions", over="ffhq", also=_configured_rules)
caf_captions_check = table_check("caf_captions", "captions", over="caf", also=_configured_rules)
