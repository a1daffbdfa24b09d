"""The jobs: what is run together."""

import dagster as dg

PIPELINE = "pipeline"
CORPUS = "corpus"

corpus = dg.define_asset_job(
    CORPUS,
    selection=dg.AssetSelection.assets("synthetic_corpus"),
    description="Draw the synthetic corpus, so that its shards can become partitions.",
)
pipeline = dg.define_asset_job(
    PIPELINE,
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets("synthetic_corpus"),
    description="Everything, from photographs to a registered model and its release files.",
)
caf_shard = dg.define_asset_job(
    "caf_shard",
    selection=dg.AssetSelection.assets(
        "caf_images", "caf_predictions", "caf_enhanced", "caf_captions"
    ),
    description="What a new CAF shard needs by itself: images, predictions, enhancement, captions.",
)
relabel = dg.define_asset_job(
    "relabel",
    selection=dg.AssetSelection.assets(
        "ffhq_images", "ffhq_predictions", "moe_labels", "keep_list"
    ),
    description="Read new and changed images and label every face again.",
)
evaluation = dg.define_asset_job(
    "evaluation",
    selection=dg.AssetSelection.assets("evaluators", "evaluation_report"),
    description="Measure the model again.",
)

JOBS = [corpus, pipeline, caf_shard, relabel, evaluation]
