"""The jobs: what is run together."""

import dagster as dg

from jobs.overlap import exclusive
from jobs.retention import remove_old_runs_job

PIPELINE = "pipeline"
CORPUS = "corpus"
RELABEL = "relabel"
EVALUATION = "evaluation"

corpus = dg.define_asset_job(
    CORPUS,
    selection=dg.AssetSelection.assets("synthetic_corpus"),
    tags=exclusive(CORPUS),
    description="Draw the synthetic corpus, so that its shards can become partitions.",
)
pipeline = dg.define_asset_job(
    PIPELINE,
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets("synthetic_corpus"),
    tags=exclusive(PIPELINE),
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
    RELABEL,
    selection=dg.AssetSelection.assets(
        "ffhq_images", "ffhq_predictions", "moe_labels", "keep_list"
    ),
    tags=exclusive(RELABEL),
    description="Read new and changed images and label every face again.",
)
evaluation = dg.define_asset_job(
    EVALUATION,
    selection=dg.AssetSelection.assets("evaluators", "evaluation_report"),
    tags=exclusive(EVALUATION),
    description="Measure the model again, beside the champion.",
)

JOBS = [corpus, pipeline, caf_shard, relabel, evaluation, remove_old_runs_job]
