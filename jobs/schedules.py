"""What runs by itself: weekly re-labelling, nightly evaluation."""

import dagster as dg

from jobs.asset_jobs import evaluation, relabel

weekly_relabel = dg.ScheduleDefinition(
    name="weekly_relabel",
    job=relabel,
    cron_schedule="0 3 * * 0",
    execution_timezone="UTC",
    description="Labels new and changed images every Sunday at 03:00 UTC.",
)
nightly_evaluation = dg.ScheduleDefinition(
    name="nightly_evaluation",
    job=evaluation,
    cron_schedule="0 1 * * *",
    execution_timezone="UTC",
    description="Measures the model every night at 01:00 UTC; skips itself where nothing changed.",
)

SCHEDULES = [weekly_relabel, nightly_evaluation]
