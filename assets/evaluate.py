"""The report on labels, enhancement and renderings."""

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace
from assets.checking import suite_check
from assets.running import stage_asset

evaluation_report = stage_asset(
    "evaluation_report",
    "evaluate",
    what="What the labels, the enhancement and the renderings are worth, each figure with its "
    "sample size and interval; what must hold, and the champion face by face "
    "(`report.html`, `metrics.json`, `grid.png`).",
    deps=["age_transformer", "evaluators"],
    group="evaluation",
    cost="Ten renderings of every held-out face, read by the evaluators.",
    gpu=True,
    kinds={"pytorch"},
)


def _judge(config: PipelineConfig, workspace: Workspace, name: str):
    from agetf_pipeline.quality.gates import check_evaluation

    return check_evaluation(config, workspace, name)


evaluation_check = suite_check(
    "evaluation_report",
    "must_hold",
    "What a run must show, statement by statement: one that does not hold asks a person to look. A "
    "figure without a reason or a sample size blocks.",
    _judge,
)
