"""The model in the MLflow registry."""

from assets.freshness import MODEL
from assets.running import stage_asset

registered_model = stage_asset(
    "registered_model",
    "register",
    deps=["evaluation_report"],
    group="evaluation",
    cost="Seconds; copies the weights into the registry.",
    kinds={"mlflow"},
    freshness=MODEL,
)
