"""The mixture's labels of every face."""

from agetf_pipeline.config import PipelineConfig
from assets.checking import table_check
from assets.freshness import LABELS
from assets.running import stage_asset

moe_labels = stage_asset(
    "moe_labels",
    "relabel",
    deps=["ffhq_predictions", "caf_predictions"],
    group="labels",
    cost="Seconds; no network runs.",
    kinds={"python", "parquet"},
    freshness=LABELS,
)


def _required_experts(config: PipelineConfig):
    from agetf_pipeline.quality.rules import enough_experts

    required = config.relabel.required_experts
    return [] if required is None else [enough_experts(required)]


moe_labels_check = table_check("moe_labels", "labels", also=_required_experts)
