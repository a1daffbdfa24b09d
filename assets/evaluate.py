"""The report on labels, enhancement and renderings."""

from assets.running import stage_asset

evaluation_report = stage_asset(
    "evaluation_report",
    "evaluate",
    deps=["age_transformer", "evaluators"],
    group="evaluation",
    cost="Ten renderings of every held-out face, read by the evaluators.",
    gpu=True,
    kinds={"pytorch"},
)
