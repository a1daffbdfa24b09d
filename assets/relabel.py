"""The mixture's labels of every face."""

import dagster as dg

from agetf_pipeline.config import PipelineConfig
from assets.checking import check_result, judge_table
from assets.freshness import LABELS
from assets.running import stage_asset
from resources.pipeline import PipelineResource

moe_labels = stage_asset(
    "moe_labels",
    "relabel",
    what="The label of every face by the calibrated mixture of experts: age, variance, "
    "interval, every expert's part, and what becomes of the original label (table "
    "`labels`, and `ffhq_aging_moe_labels.csv`/`.json`).",
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


_EXPECTATIONS, _DRIFT = "labels_expectations", "label_drift"


@dg.multi_asset_check(
    name="moe_labels_checks",
    specs=[
        dg.AssetCheckSpec(
            _EXPECTATIONS,
            asset="moe_labels",
            description="Great Expectations suite of the table `labels`: every rule, how many rows "
            "break it, and some of those rows.",
            blocking=True,
        ),
        dg.AssetCheckSpec(
            _DRIFT,
            asset="moe_labels",
            description="These labels beside the last accepted ones: how far the distribution of "
            "ages moved, and how many labels did. Accepted are labels whose suite does not block; "
            "the first ones accept themselves.",
        ),
    ],
)
def moe_labels_checks(pipeline: PipelineResource):
    """Judge the labels, then compare them: what is accepted depends on the verdict."""
    from agetf_pipeline.quality.drift import check_label_drift

    config, workspace = pipeline.load()
    name = f"moe_labels/{_EXPECTATIONS}"
    result = judge_table(config, workspace, name, "labels", also=_required_experts)
    yield check_result(result, workspace, name, _EXPECTATIONS)
    name = f"moe_labels/{_DRIFT}"
    drift = check_label_drift(workspace, config.quality, name, acceptable=not result.blocks)
    yield check_result(drift, workspace, name, _DRIFT)
