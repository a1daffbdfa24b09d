"""What looks for new work: CAF shards that arrived or changed."""

import uuid

import dagster as dg

from agetf_pipeline.data.shard_requests import request_book
from agetf_pipeline.data.shards import Shard, scan_shards
from assets.partitions import CAF_SHARDS
from jobs.asset_jobs import caf_shard
from jobs.overlap import run_tags
from resources.pipeline import PipelineResource

MAX_REQUESTS = 50
"""Runs that one tick asks for: each is a process. `make backfill SHARDS=missing` takes many shards
in a run."""

_FIRST_ASSET = dg.AssetKey("caf_images")
_NUM_NAMED = 20
_IDENTITY = "agetf/instance"


@dg.sensor(job=caf_shard, minimum_interval_seconds=60)
def new_caf_shards(
    context: dg.SensorEvaluationContext, pipeline: PipelineResource
) -> dg.SensorResult:
    """Add a partition for every complete new shard; request its run once, and when it changes.

    Shards that are incomplete, broken or gone are named with their reasons, here and by the check
    `caf_shards_on_disk`; they stop no other.
    """
    instance = context.instance
    config, workspace = pipeline.load()
    known = set(instance.get_dynamic_partitions(str(CAF_SHARDS.name)))
    shards = scan_shards(config, workspace, known)
    complete = {shard.name: shard.fingerprint for shard in shards if shard.state == "complete"}
    problems = describe_problems(shards)
    for problem in problems[:_NUM_NAMED]:
        context.log.warning(problem)
    with request_book(workspace, instance_identity(instance)) as book:
        book.settle(context.cursor)
        unseen = (known & set(complete)) - set(book.taken)
        if unseen:
            # Made before anybody kept this book: what is materialised needs no request.
            made = unseen & instance.get_materialized_partitions(_FIRST_ASSET)
            book.take({name: complete[name] for name in made})
        due = book.due(complete, known)
        requests = dict(list(due.items())[:MAX_REQUESTS])
        cursor = book.promise(requests) if requests else context.cursor
    if not requests:
        lines = [f"No new shard: {len(complete)} complete, all asked for.", *problems[:_NUM_NAMED]]
        return dg.SensorResult(skip_reason="\n".join(lines), cursor=cursor)
    if len(due) > len(requests):
        context.log.warning(
            f"{len(due) - len(requests)} more shards follow at the next ticks, a run each; "
            "`make backfill SHARDS=missing` is faster."
        )
    new = sorted(set(complete) - known)
    return dg.SensorResult(
        dynamic_partitions_requests=[CAF_SHARDS.build_add_request(new)] if new else [],
        run_requests=[
            dg.RunRequest(
                run_key=f"{shard}:{fingerprint}",
                partition_key=shard,
                tags=run_tags("sensor") | {"agetf/shard_fingerprint": fingerprint},
            )
            for shard, fingerprint in requests.items()
        ],
        cursor=cursor,
    )


def describe_problems(shards: list[Shard]) -> list[str]:
    """Return a line for every shard that is not complete: name, state, reason, what to do."""
    return [
        f"{shard.name} is {shard.state.replace('_', ' ')}: {shard.reason} {shard.remedy}"
        for shard in shards
        if shard.state != "complete"
    ]


def instance_identity(instance: dg.DagsterInstance) -> str:
    """Return what tells one Dagster instance from another over the same workspace."""
    storage = instance.daemon_cursor_storage
    known = storage.get_cursor_values({_IDENTITY}).get(_IDENTITY)
    if known is None:
        known = uuid.uuid4().hex
        storage.set_cursor_values({_IDENTITY: known})
    return known


SENSORS = [new_caf_shards]
