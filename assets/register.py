"""The model in the MLflow registry."""

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace
from assets.checking import suite_check
from assets.freshness import MODEL
from assets.running import stage_asset

registered_model = stage_asset(
    "registered_model",
    "register",
    what="The model and the mixture as versions in the MLflow registry, and whether they "
    "became the champion (`models:/<name>@champion`).",
    deps=["evaluation_report"],
    group="registry",
    cost="Seconds; copies the weights into the registry.",
    kinds={"mlflow"},
    freshness=MODEL,
)


def _judge(config: PipelineConfig, workspace: Workspace, name: str):
    from agetf_pipeline.quality.gates import check_promotion

    return check_promotion(config, workspace, name)


promotion_check = suite_check(
    "registered_model",
    "promotion",
    "Whether the new versions became champions, gate by gate; a challenger that stayed one asks a "
    "person to look.",
    _judge,
    blocking=False,
)
