"""What runs by itself: weekly re-labelling, nightly evaluation, and the removal of old runs."""

import os
from zoneinfo import ZoneInfo

import dagster as dg

from agetf_pipeline.core.errors import ConfigError
from jobs.asset_jobs import EVALUATION, RELABEL, evaluation, relabel
from jobs.overlap import overlap, run_tags
from jobs.retention import remove_old_runs_job
from resources.pipeline import PipelineResource

_TIMEZONE_VARIABLE = "AGETF_TIMEZONE"


def timezone() -> str:
    """Return the time zone of the schedules: AGETF_TIMEZONE, or UTC.

    Raises:
        ConfigError: There is no such time zone.
    """
    name = os.environ.get(_TIMEZONE_VARIABLE) or "UTC"
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise ConfigError(
            f"Expected a time zone in {_TIMEZONE_VARIABLE}, such as Europe/Berlin; found {name!r}. "
            "Correct it, or remove it for UTC."
        ) from error
    return name


@dg.schedule(
    job=relabel,
    cron_schedule="0 3 * * 0",
    execution_timezone=timezone(),
    description="Labels new and changed images every Sunday at 03:00; keeps every other label.",
)
def weekly_relabel(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request a run, unless one is in progress. What is current, its stages leave alone."""
    busy = overlap(context.instance, RELABEL)
    if busy is not None:
        return dg.SkipReason(busy)
    return dg.RunRequest(tags=run_tags("schedule"))


@dg.schedule(
    job=evaluation,
    cron_schedule="0 1 * * *",
    execution_timezone=timezone(),
    description="Measures the model beside the champion every night at 01:00 where model, "
    "champion, judges, tables or settings changed.",
)
def nightly_evaluation(
    context: dg.ScheduleEvaluationContext, pipeline: PipelineResource
) -> dg.RunRequest | dg.SkipReason:
    """Request a run where the last report does not hold any more, and none is in progress."""
    from agetf_pipeline.commands.reevaluation import plan_reevaluation

    busy = overlap(context.instance, EVALUATION)
    if busy is not None:
        return dg.SkipReason(busy)
    config, workspace = pipeline.load()
    plan = plan_reevaluation(config, workspace)
    if plan.run_name is None:
        return dg.SkipReason(plan.reason)
    request = dg.RunRequest(tags=run_tags("schedule") | {"agetf/run_name": plan.run_name})
    if plan.run_name == config.train.run_name:
        return request
    overrides = {"overrides": [*pipeline.overrides, f"train.run_name={plan.run_name}"]}
    settings = {"resources": {"pipeline": {"config": overrides}}}
    return request.with_replaced_attrs(run_config=settings)


nightly_removal = dg.ScheduleDefinition(
    name="nightly_removal",
    job=remove_old_runs_job,
    cron_schedule="0 5 * * *",
    execution_timezone=timezone(),
    tags=run_tags("schedule"),
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Removes old runs that no asset's state rests on any more, every night at 05:00.",
)

SCHEDULES = [weekly_relabel, nightly_evaluation, nightly_removal]
