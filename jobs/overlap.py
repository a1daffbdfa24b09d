"""One run of a job at a time, and what every run says of where it came from.

A tick skips while a run of its job is in progress, whoever launched that. What is launched by hand
meanwhile waits in the queue: configs/dagster.yaml lets one run of each exclusive job in at a time.
"""

import dagster as dg

from agetf_pipeline.core.errors import StageError
from resources.pipeline import deployed_config

TRIGGER_TAG = "agetf/trigger"
CONFIG_TAG = "agetf/config"
EXCLUSIVE_TAG = "agetf/exclusive"

UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def run_tags(trigger: str) -> dict[str, str]:
    """Return the tags of a run: what launched it (`schedule`, `sensor`, ...), on which config."""
    return {TRIGGER_TAG: trigger, CONFIG_TAG: deployed_config()}


def exclusive(job: str) -> dict[str, str]:
    """Return the tags of a job of which one run is in progress at a time."""
    return {EXCLUSIVE_TAG: job}


def overlap(instance: dg.DagsterInstance, job: str) -> str | None:
    """Return which run of a job is in progress, as a sentence; None where there is none."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED), limit=1)
    if not runs:
        return None
    run = runs[0]
    origin = run.tags.get(TRIGGER_TAG, "hand")
    return (
        f"Run {run.run_id[:8]} of the job '{job}' is in progress ({run.status.value.lower()}, "
        f"launched by {origin})."
    )


def refuse_overlap(instance: dg.DagsterInstance, job: str) -> None:
    """Leave a job alone that is in progress.

    Raises:
        StageError: A run of the job is in progress.
    """
    found = overlap(instance, job)
    if found is not None:
        raise StageError(
            f"Expected no other run of the job '{job}'. {found} Wait for it to end, or terminate "
            "it in the UI, and run this again."
        )
