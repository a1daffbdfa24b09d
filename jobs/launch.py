"""The main job, from a terminal: `python -m jobs.launch --config configs/demo.yaml`.

Runs in this process over the instance in DAGSTER_HOME, so that `make ui` shows what it did. Killed
at any point and started again, it goes on: every stage knows what it has already done.
"""

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
from dagster._core.execution.plan.objects import StepFailureData

from agetf_pipeline.core.devices import prepare_process
from agetf_pipeline.core.ending import describe_bug
from agetf_pipeline.core.files import write_bytes
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import is_caf, shard_of
from assets.partitions import CAF_SHARDS
from jobs.asset_jobs import CORPUS, PIPELINE
from jobs.ending import describe_end
from jobs.overlap import UNFINISHED, refuse_overlap, run_tags
from jobs.stale_runs import reap
from jobs.summary import print_summary
from resources.gpu import GPU_POOL, count_devices
from resources.pipeline import CONFIG_VARIABLE, REPOSITORY, PipelineResource

_LOGGER = logging.getLogger(__name__)
LAUNCHER_TAG = "agetf/launcher"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def prepare_home(home: Path) -> None:
    """Make the folder of the Dagster instance, with its settings.

    Raises:
        StorageError: It cannot be made.
    """
    settings = (REPOSITORY / "configs" / "dagster.yaml").read_bytes()
    write_bytes(home / "dagster.yaml", settings)
    os.environ["DAGSTER_HOME"] = str(home)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the corpus job and the pipeline job; return 0 on success."""
    parser = argparse.ArgumentParser(prog="python -m jobs.launch", description=__doc__)
    parser.add_argument("--config", default="configs/demo.yaml", help="a file of configs/")
    parser.add_argument("--home", required=True, type=Path, help="folder of the Dagster instance")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    prepare_process()
    log_to_terminal()
    os.environ[CONFIG_VARIABLE] = options.config
    started_s = time.monotonic()
    try:
        prepare_home(options.home.resolve())
        config, workspace = PipelineResource().load()
        with (
            exclusive_lock(options.home / "launch.lock", "the main job", wait=False),
            dg.DagsterInstance.get() as instance,
        ):
            succeeded = _run(instance)
    except BaseException as error:  # Dagster's interruption is none of Python's Exceptions
        ending = describe_end(error, options.home.resolve())
        if ending is None and not isinstance(error, Exception):
            raise
        message, code = ending or describe_bug(error)
        print(f"\n{message}", file=sys.stderr)  # noqa: T201
        return code
    if succeeded:
        print_summary(config, workspace, time.monotonic() - started_s)
    return 0 if succeeded else 1


class _PlainFormatter(logging.Formatter):
    """Time and message; Dagster puts the job, the run and the step before what it captures."""

    def format(self, record: logging.LogRecord) -> str:
        message = getattr(record, "dagster_meta", {}).get("orig_message", record.getMessage())
        return f"{self.formatTime(record, '%H:%M:%S')} {message}"


def log_to_terminal() -> None:
    """Show warnings, and what the library says of its progress, with the time alone before it."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PlainFormatter())
    # Great Expectations raises its own level when it is imported, to say where it put a folder.
    handler.addFilter(
        lambda record: record.levelno >= logging.WARNING or not record.name.startswith("great_exp")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("agetf_pipeline", __name__):
        logging.getLogger(name).setLevel(logging.INFO)


def _run(instance: dg.DagsterInstance) -> bool:
    from agetf_pipeline.data.corpora import discover_partitions
    from agetf_pipeline.data.shards import scan_shards
    from definitions import defs
    from jobs.sensors import describe_problems

    end_dead_runs(instance)
    for job in (CORPUS, PIPELINE):
        refuse_overlap(instance, job)
    instance.event_log_storage.set_concurrency_slots(GPU_POOL, max(1, count_devices()))
    config, workspace = PipelineResource().load()
    if config.synthesize.enabled and not _execute(defs.resolve_job_def(CORPUS), instance, {}):
        return False
    found = discover_partitions(config, workspace)
    scanned = scan_shards(config, workspace)
    for problem in describe_problems(scanned):
        _LOGGER.warning("%s", problem)
    unfit = {shard.name for shard in scanned if shard.state != "complete"}
    shards = [shard_of(partition) for partition in found if is_caf(partition)]
    shards = [shard for shard in shards if shard not in unfit]
    name = str(CAF_SHARDS.name)
    known = set(instance.get_dynamic_partitions(name))
    instance.add_dynamic_partitions(name, [shard for shard in shards if shard not in known])
    return _execute(defs.resolve_job_def(PIPELINE), instance, _range_tags(instance, shards))


def _range_tags(instance: dg.DagsterInstance, shards: list[str]) -> dict[str, str]:
    """Return the tags of one run over all shards (partitions keep the order they came in)."""
    ordered = [s for s in instance.get_dynamic_partitions(str(CAF_SHARDS.name)) if s in shards]
    if not ordered:
        return {}
    return {
        "dagster/asset_partition_range_start": ordered[0],
        "dagster/asset_partition_range_end": ordered[-1],
    }


def _execute(job: dg.JobDefinition, instance: dg.DagsterInstance, tags: dict[str, str]) -> bool:
    _LOGGER.info("job '%s' started", job.name)
    origin = {".dagster/repository": "__repository__@agetf", LAUNCHER_TAG: "terminal"}
    origin |= run_tags("terminal")
    result = job.execute_in_process(
        instance=instance, tags=tags | origin, run_config=QUIET, raise_on_error=False
    )
    for event in result.get_step_failure_events():
        text = _reason(event.step_failure_data)
        print(f"\n{event.step_key} failed: {text}", file=sys.stderr)  # noqa: T201
    blocked = [
        evaluation for evaluation in result.get_asset_check_evaluations() if not evaluation.passed
    ]
    for evaluation in blocked:
        level = "blocks" if evaluation.severity == dg.AssetCheckSeverity.ERROR else "warns"
        name = f"{evaluation.asset_key.to_user_string()}:{evaluation.check_name}"
        _LOGGER.warning("check %s %s (see stats/quality/)", name, level)
    return result.success


def _reason(failure: StepFailureData) -> str:
    """Return why a step failed, without Dagster's words before it."""
    said = failure.user_failure_data
    if said is not None and said.description:
        return said.description
    error = failure.error
    cause = error.cause if error is not None and error.cause is not None else error
    return cause.message.strip() if cause is not None else "no message"


def end_dead_runs(instance: dg.DagsterInstance) -> None:
    """Mark the runs whose processes are gone as failed and free their slots.

    The launcher's lock is held here: whatever still says that it runs from a terminal, does not.
    """
    # Also those that were cut off between being made and being started.
    unfinished = dg.RunsFilter(statuses=UNFINISHED, tags={LAUNCHER_TAG: "terminal"})
    for run in instance.get_runs(unfinished):
        instance.report_run_failed(run, "The process was ended before the run was.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        _LOGGER.info("run %s had been cut off; what it finished is kept", run.run_id[:8])
    reap(instance)


if __name__ == "__main__":
    sys.exit(main())
