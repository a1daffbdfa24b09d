"""CAF shards, many at once, from a terminal: `make backfill SHARDS=missing`.

Runs in this process over the instance that `make run` and `make ui` use, up to 25 shards in a run;
the UI shows the runs while they run. What finished is kept, however this ends: started again, it
does what is missing.
"""

import argparse
import logging
import os
import sys
import time
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from agetf_pipeline.core.devices import prepare_process
from agetf_pipeline.core.errors import AgetfError, DataError
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.data.shard_requests import request_book
from agetf_pipeline.data.shards import forget_shard, scan_shards
from assets.partitions import CAF_BACKFILL, CAF_SHARDS
from jobs.asset_jobs import caf_shard
from jobs.launch import LAUNCHER_TAG, QUIET, end_dead_runs, log_to_terminal, prepare_home
from jobs.overlap import run_tags
from jobs.sensors import describe_problems, instance_identity
from resources.gpu import GPU_POOL, count_devices
from resources.pipeline import CONFIG_VARIABLE, PipelineResource

MISSING = "missing"
_NAME = str(CAF_SHARDS.name)
_MAX_SAME_REASON = 3
"""Shards that may fail for the same reason in a row before the rest is not tried."""


@dataclass
class Backfill:
    """One backfill: what it runs, and how far it is.

    Attributes:
        instance: The Dagster instance.
        job: What is run for a shard.
        assets: The assets that a shard is done with.
        tags: Tags of every run.
        failed: Shard to the reason why it failed.
        num_done: Shards that finished.
    """

    instance: dg.DagsterInstance
    job: dg.JobDefinition
    assets: list[dg.AssetKey]
    tags: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)
    num_done: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the shards that were asked for; return 0 when all of them are done."""
    parser = argparse.ArgumentParser(prog="python -m jobs.backfill", description=__doc__)
    parser.add_argument("--config", default="configs/demo.yaml", help="a file of configs/")
    parser.add_argument("--home", required=True, type=Path, help="folder of the Dagster instance")
    parser.add_argument(
        "--shards", default=MISSING, help="missing, all, names (a,b), ranges by name (a...d)"
    )
    parser.add_argument("--assets", default="", help="names (a,b); default: all of a shard")
    parser.add_argument("--forget", action="store_true", help="forget these removed shards instead")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    prepare_process()
    log_to_terminal()
    logging.getLogger("agetf_pipeline").setLevel(logging.WARNING)
    os.environ[CONFIG_VARIABLE] = options.config
    prepare_home(options.home.resolve())
    try:
        with (
            exclusive_lock(
                options.home / "launch.lock", "running jobs from a terminal", wait=False
            ),
            dg.DagsterInstance.get() as instance,
        ):
            end_dead_runs(instance)
            if options.forget:
                return _forget(instance, options.shards)
            return _run(instance, options.shards, options.assets)
    except AgetfError as error:
        print(f"\n{error}", file=sys.stderr)  # noqa: T201
        return 1


def select_shards(text: str, complete: Sequence[str], missing: Sequence[str]) -> list[str]:
    """Return the shards that a person asked for, sorted.

    Args:
        text: `missing`, `all`, or names and ranges by name (`a...d`, both included), with commas.
        complete: Complete shards on disk.
        missing: Those of them that are not materialised.

    Raises:
        DataError: A name is not that of a complete shard, or a range runs backwards.
    """
    chosen: set[str] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part in (MISSING, "all"):
            chosen |= set(missing if part == MISSING else complete)
            continue
        first, dots, last = part.partition("...")
        last = last if dots else first
        unknown = [name for name in (first, last) if name not in complete]
        if unknown or last < first:
            raise DataError(
                "Expected 'missing', 'all', names of complete shards (a,b) or a range by name "
                f"(a...d); found {part!r}. Complete shards: {_some(sorted(complete)) or 'none'}."
            )
        chosen |= {name for name in complete if first <= name <= last}
    return sorted(chosen)


def split_into_runs(shards: Sequence[str], order: Sequence[str], limit: int) -> list[list[str]]:
    """Return the shards in runs: neighbours in the partitions' order, at most `limit` in each.

    A run covers a range of partitions, so that shards which are no neighbours cannot share one.
    """
    place = {name: index for index, name in enumerate(order)}
    runs: list[list[str]] = []
    for shard in sorted(shards, key=place.__getitem__):
        follows = bool(runs) and place[shard] == place[runs[-1][-1]] + 1
        if follows and len(runs[-1]) < limit:
            runs[-1].append(shard)
        else:
            runs.append([shard])
    return runs


def _forget(instance: dg.DagsterInstance, names: str) -> int:
    """Delete the tables, pictures and partitions of removed shards."""
    config, workspace = PipelineResource().load()
    for name in filter(None, (name.strip() for name in names.split(","))):
        for path in forget_shard(config, workspace, name):
            print(f"deleted {workspace.relative(path)}")  # noqa: T201
        if instance.has_dynamic_partition(_NAME, name):
            instance.delete_dynamic_partition(_NAME, name)
        print(f"{name} is forgotten")  # noqa: T201
    return 0


def _run(instance: dg.DagsterInstance, wanted: str, assets: str) -> int:
    from definitions import defs

    job = defs.resolve_job_def(caf_shard.name)
    keys = [dg.AssetKey(name) for name in filter(None, assets.split(","))]
    keys = keys or sorted(job.asset_layer.selected_asset_keys)
    shards = _prepare(instance, wanted, keys)
    if not shards:
        print("backfill: nothing is missing")  # noqa: T201
        return 0
    instance.event_log_storage.set_concurrency_slots(GPU_POOL, max(1, count_devices()))
    tags = {
        ".dagster/repository": "__repository__@agetf",
        LAUNCHER_TAG: "terminal",
        "agetf/backfill": uuid.uuid4().hex[:8],
        **run_tags("backfill"),
    }
    backfill = Backfill(instance, job, keys, tags)
    order = instance.get_dynamic_partitions(_NAME)
    runs = split_into_runs(shards, order, CAF_BACKFILL.max_partitions_per_run or len(shards))
    started_s, num_tried = time.monotonic(), 0
    print(f"backfill: {len(shards)} shards in {len(runs)} runs", flush=True)  # noqa: T201
    for run in runs:
        if not _run_shards(backfill, run):
            break
        num_tried += len(run)
        passed_s = time.monotonic() - started_s
        left_s = passed_s / num_tried * (len(shards) - num_tried)
        print(  # noqa: T201
            f"backfill: {num_tried} of {len(shards)} shards, {len(backfill.failed)} failed, "
            f"{passed_s:.0f} s, about {left_s:.0f} s left",
            flush=True,
        )
    return _conclude(backfill, len(shards))


def _prepare(instance: dg.DagsterInstance, wanted: str, assets: Sequence[dg.AssetKey]) -> list[str]:
    """Make partitions of the complete shards; return those to run, and keep the sensor off them."""
    config, workspace = PipelineResource().load()
    known = instance.get_dynamic_partitions(_NAME)
    found = scan_shards(config, workspace, known)
    for problem in describe_problems(found):
        print(f"left out: {problem}", file=sys.stderr)  # noqa: T201
    complete = {shard.name: shard.fingerprint for shard in found if shard.state == "complete"}
    if new := sorted(set(complete) - set(known)):
        instance.add_dynamic_partitions(_NAME, new)
    done = set(complete).intersection(*map(instance.get_materialized_partitions, assets))
    shards = select_shards(wanted, sorted(complete), sorted(set(complete) - done))
    with request_book(workspace, instance_identity(instance)) as book:
        book.take({shard: complete[shard] for shard in shards})
    return shards


def _run_shards(backfill: Backfill, shards: list[str]) -> bool:
    """Run some shards together; those that did not finish, alone. False: it is not the shards."""
    unfinished, reason = _execute(backfill, shards)
    backfill.num_done += len(shards) - len(unfinished)
    if len(shards) == 1 and unfinished:
        backfill.failed[shards[0]] = reason
        unfinished = []
    for shard in unfinished:
        still, reason = _execute(backfill, [shard])
        if still:
            backfill.failed[shard] = reason
        else:
            backfill.num_done += 1
        if _is_stuck(backfill):
            return False
    return not _is_stuck(backfill)


def _is_stuck(backfill: Backfill) -> bool:
    """Whether shard after shard fails for the same reason, and none ever finished."""
    last = list(backfill.failed.values())[-_MAX_SAME_REASON:]
    return backfill.num_done == 0 and len(last) == _MAX_SAME_REASON and len(set(last)) == 1


def _execute(backfill: Backfill, shards: list[str]) -> tuple[list[str], str]:
    """Run some neighbouring shards; return those that did not finish, and why."""
    tags = {
        "dagster/asset_partition_range_start": shards[0],
        "dagster/asset_partition_range_end": shards[-1],
    }
    result = backfill.job.execute_in_process(
        instance=backfill.instance,
        asset_selection=backfill.assets,
        tags=backfill.tags | (tags if len(shards) > 1 else {"dagster/partition": shards[0]}),
        run_config=QUIET,
        raise_on_error=False,
    )
    if result.success:
        return [], ""
    made = {
        (record.asset_key, record.partition_key)
        for record in backfill.instance.get_records_for_run(
            result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        ).records
    }
    unfinished = [s for s in shards if any((key, s) not in made for key in backfill.assets)]
    # A check that blocks fails the run after everything was made: nobody's shard is finished then.
    return unfinished or shards, _reason(result)


def _reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return f"{event.step_key}: {data.user_failure_data.description}"
        error = data.error
        cause = error.cause if error is not None and error.cause is not None else error
        return f"{event.step_key}: {'no message' if cause is None else cause.message.strip()}"
    return "the run did not succeed; the UI shows its events"


def _conclude(backfill: Backfill, num_shards: int) -> int:
    num_left = num_shards - backfill.num_done - len(backfill.failed)
    print(f"backfill: {backfill.num_done} of {num_shards} shards are done")  # noqa: T201
    for shard, reason in backfill.failed.items():
        print(f"failed: {shard}: {reason}", file=sys.stderr)  # noqa: T201
    if num_left:
        print(  # noqa: T201
            f"not tried: {num_left} shards, since {_MAX_SAME_REASON} failed in a row for the same "
            "reason. Remove its cause and run this again.",
            file=sys.stderr,
        )
    return 0 if backfill.num_done == num_shards else 1


def _some(names: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


if __name__ == "__main__":
    sys.exit(main())
