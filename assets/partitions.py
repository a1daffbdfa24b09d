"""How the assets are partitioned: a partition per CAF shard, added when the shard arrives."""

import os

import dagster as dg

from agetf_pipeline.core.errors import ConfigError

SHARDS_VARIABLE = "AGETF_SHARDS_PER_RUN"
"""Environment variable of the code location: how many shards a run of a backfill takes."""
_SHARDS_PER_RUN = 25


def shards_per_run() -> int:
    """Return how many shards a run of a backfill takes, as this deployment says.

    Raises:
        ConfigError: The variable is no number above zero.
    """
    spelling = os.environ.get(SHARDS_VARIABLE, str(_SHARDS_PER_RUN))
    if not spelling.isdecimal() or int(spelling) < 1:
        raise ConfigError(
            f"Expected {SHARDS_VARIABLE} to be a number above zero; found {spelling!r}. Correct "
            "the deployment's environment."
        )
    return int(spelling)


CAF_SHARDS = dg.DynamicPartitionsDefinition(name="caf_shards")

# Idempotent stages over many shards: one run takes up to 25, which costs a fifth of the time of a
# run per shard and loses nothing when it dies. Of shards that take hours, fewer are better: a run's
# shards are done one after the other.
CAF_BACKFILL = dg.BackfillPolicy.multi_run(max_partitions_per_run=shards_per_run())
