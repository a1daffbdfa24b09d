"""How the assets are partitioned: a partition per CAF shard, added when the shard arrives."""

import dagster as dg

CAF_SHARDS = dg.DynamicPartitionsDefinition(name="caf_shards")

# Idempotent stages over many shards: one run takes up to 25, which costs a fifth of the time of a
# run per shard and loses nothing when it dies.
CAF_BACKFILL = dg.BackfillPolicy.multi_run(max_partitions_per_run=25)
