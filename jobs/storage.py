"""Photographs from shared storage: copied every quarter of an hour, where that is switched on."""

import dagster as dg

from agetf_pipeline.core.progress import progress_listener
from assets.retries import failing_readably
from jobs.overlap import exclusive, overlap, run_tags
from jobs.schedules import timezone
from resources.pipeline import PipelineResource

PULL = "pull_sources"


@dg.op
def pull_photographs(context: dg.OpExecutionContext, pipeline: PipelineResource) -> None:
    """Copy what is new or changed at `ingest.<corpus>.source_uri` into the workspace."""
    from agetf_pipeline.commands.storage import pull_sources

    def say(line: str) -> None:
        context.log.info(line)

    with failing_readably(), progress_listener(lambda event: say(str(event))):
        config, workspace = pipeline.load()
        reports = pull_sources(config, workspace, say)
    for corpus, report in reports.items():
        for name, reason in report.refused:
            context.log.warning(f"{corpus}: {name} was not taken. {reason}")
    context.add_output_metadata(
        {
            f"{corpus}/{name}": dg.MetadataValue.int(count)
            for corpus, report in reports.items()
            for name, count in (
                ("new", report.num_new),
                ("changed", report.num_changed),
                ("kept", report.num_kept),
                ("gone", len(report.gone)),
                ("refused", len(report.refused)),
            )
        }
    )


@dg.job(
    name=PULL,
    tags=exclusive(PULL),
    description="Copies new and changed photographs from shared storage (ingest.<corpus>."
    "source_uri: s3://, gs://, ...) into the workspace. It deletes nothing.",
)
def pull_sources_job() -> None:
    """Copy, and say what was copied."""
    pull_photographs()


@dg.schedule(
    job=pull_sources_job,
    cron_schedule="*/15 * * * *",
    execution_timezone=timezone(),
    description="Copies new photographs from shared storage every 15 minutes; complete new shards "
    "are then found by the sensor new_caf_shards.",
)
def quarter_hourly_pull(
    context: dg.ScheduleEvaluationContext, pipeline: PipelineResource
) -> dg.RunRequest | dg.SkipReason:
    """Request a run where a corpus has a source, unless one is in progress."""
    from agetf_pipeline.commands.storage import sources

    config, _ = pipeline.load()
    if not sources(config):
        return dg.SkipReason("No corpus has a source: set ingest.<corpus>.source_uri to copy one.")
    busy = overlap(context.instance, PULL)
    if busy is not None:
        return dg.SkipReason(busy)
    return dg.RunRequest(tags=run_tags("schedule"))
