"""`--dry-run`: what a stage would do, with which settings, and how long that took before."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from agetf_pipeline.core.errors import AgetfError

if TYPE_CHECKING:
    from agetf_pipeline.config import PipelineConfig
    from agetf_pipeline.core.workspace import Workspace

_SECTION_OF = {"register": "register_model"}
_NOTHING_NEW, _WOULD_RUN, _CANNOT = "nothing_new", "would_run", "cannot_run_yet"


@dataclass(frozen=True)
class StagePlan:
    """What one stage would do with one partition.

    Attributes:
        stage: The stage's verb.
        partition: The partition, or None.
        verdict: `nothing_new`, `would_run` or `cannot_run_yet`.
        reason: Why it cannot run yet.
        estimated_s: Seconds, from earlier runs; 0 where nothing is new, None where none is known.
        estimated_from: What the estimate is from, or why there is none.
    """

    stage: str
    partition: str | None
    verdict: str
    reason: str | None
    estimated_s: float | None
    estimated_from: str


def say_plans(
    stage: str,
    config: "PipelineConfig",
    workspace: "Workspace",
    partitions: Sequence[str | None],
    as_json: bool,
    say: Callable[[str], None],
) -> None:
    """Say what a stage would do with each partition, and its settings; write nothing.

    Args:
        stage: The stage's verb.
        config: The configuration.
        workspace: The workspace.
        partitions: Those to look at; [None] for a stage that has none.
        as_json: Print JSON, a line a plan, with the settings in it.
        say: Takes a line.
    """
    settings = settings_of(stage, config)
    plans = [plan_stage(stage, config, workspace, partition) for partition in partitions]
    if as_json:
        for plan in plans:
            say(json.dumps({**asdict(plan), "settings": settings}))
        return
    say(f"{stage}: {json.dumps(settings, sort_keys=True)}")
    if not plans:
        say("  no partition: nothing to do")
    for plan in plans:
        where = f" {plan.partition}" if plan.partition else ""
        say(f"  {stage}{where}: {_spell(plan)}")


def settings_of(stage: str, config: "PipelineConfig") -> dict[str, Any]:
    """Return the resolved section of a stage, and where and on what it runs."""
    sections = (_SECTION_OF.get(stage, stage), "workspace", "runtime")
    return {name: getattr(config, name).model_dump(mode="json") for name in sections}


def plan_stage(
    stage: str, config: "PipelineConfig", workspace: "Workspace", partition: str | None
) -> StagePlan:
    """Return what a stage would do with a partition; write nothing.

    A stage whose inputs another stage would change first is judged by what is there now.
    """
    from agetf_pipeline.core.work import planning
    from agetf_pipeline.stages.catalogue import run_stage

    try:
        with planning():
            report = run_stage(stage, config, workspace, partition)
    except AgetfError as error:
        return StagePlan(stage, partition, _CANNOT, str(error), None, "it cannot run yet")
    if report.status == "skipped":
        return StagePlan(stage, partition, _NOTHING_NEW, None, 0.0, "nothing to do")
    seconds, source = _estimate(stage, workspace, partition)
    return StagePlan(stage, partition, _WOULD_RUN, None, seconds, source)


def _estimate(
    stage: str, workspace: "Workspace", partition: str | None
) -> tuple[float | None, str]:
    """Return how long the stage took before, seconds, and where that is known from."""
    from agetf_pipeline.core.work import load_report, report_path

    last = load_report(workspace, stage, partition)
    if last is not None:
        return last.duration_s, "its last run here"
    if partition is not None:
        folder = report_path(workspace, stage, partition).parents[len(partition.split("/")) - 1]
        names = [
            path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.json")
        ]
        reports = [load_report(workspace, stage, name) for name in sorted(names)]
        known = [report.duration_s for report in reports if report is not None]
        if known:
            return statistics.median(known), f"the median of {len(known)} other partitions"
    return None, "it has not run here yet"


def _spell(plan: StagePlan) -> str:
    if plan.verdict == _NOTHING_NEW:
        return "nothing new"
    if plan.verdict == _CANNOT:
        return f"cannot run yet. {plan.reason}"
    if plan.estimated_s is None:
        return f"would run; time unknown: {plan.estimated_from}"
    return f"would run; about {plan.estimated_s:.0f} s (by {plan.estimated_from})"
