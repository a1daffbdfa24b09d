"""What looks for new work: CAF shards that arrived."""

import dagster as dg

from agetf_pipeline.core.workspace import is_caf, shard_of
from assets.partitions import CAF_SHARDS
from jobs.asset_jobs import caf_shard
from resources.pipeline import PipelineResource


def new_shards(pipeline: PipelineResource, known: set[str]) -> list[str]:
    """Return the shards on disk that are not among the known partitions, sorted."""
    from agetf_pipeline.data.corpora import discover_partitions

    config, workspace = pipeline.load()
    found = [shard_of(p) for p in discover_partitions(config, workspace) if is_caf(p)]
    return sorted(set(found) - known)


@dg.sensor(job=caf_shard, minimum_interval_seconds=60)
def new_caf_shards(context: dg.SensorEvaluationContext, pipeline: PipelineResource):
    """Add a partition for every shard that arrived, and request its run once."""
    known = set(context.instance.get_dynamic_partitions(str(CAF_SHARDS.name)))
    shards = new_shards(pipeline, known)
    if not shards:
        return dg.SkipReason(f"No new shard; {len(known)} are known.")
    return dg.SensorResult(
        dynamic_partitions_requests=[CAF_SHARDS.build_add_request(shards)],
        run_requests=[dg.RunRequest(run_key=shard, partition_key=shard) for shard in shards],
    )


SENSORS = [new_caf_shards]
