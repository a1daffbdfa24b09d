"""Many shards in one run: each is materialised the moment it is done, and none stops the others."""

from collections.abc import Callable, Iterable
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

from agetf_pipeline.core.errors import DataError, DeviceLostError, StageError, UnavailableError
from agetf_pipeline.stages.base import StageReport

_NUM_NAMED = 10


def materialise_each(
    context: dg.AssetExecutionContext,
    code_version: str,
    run_one: Callable[[str], StageReport],
    describe: Callable[[StageReport], dict[str, Any]],
) -> None:
    """Run every shard of this run and log its materialisation as soon as it is done.

    Left to Dagster, the materialisations of a step come when it ends, and a process that is killed
    before that leaves none of what it finished. So they are logged here, and Dagster is told not to
    log them again.

    Args:
        context: Of the step.
        code_version: Of the asset.
        run_one: Does one shard.
        describe: Turns its report into metadata.

    Raises:
        StageError: Some shards cannot be used; the others were done first.
        UnavailableError: As before, and all of them may be usable a minute later.
        DeviceLostError: The GPU is gone; the shards before it are done.
    """
    # Dagster's own mark for steps whose body logs their events (observable sources).
    context.add_output_metadata({SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})
    done_before = _logged_in_this_run(context) if context.retry_number else set()
    failed: dict[str, str] = {}
    passing = True
    for shard in context.partition_keys:
        try:
            report = run_one(shard)
        except DeviceLostError:
            raise  # nor could the other shards be computed in this process
        except (DataError, StageError) as error:
            passing &= isinstance(error, UnavailableError)
            context.log.error(f"{shard}: {error}")
            failed[shard] = str(error)
            continue
        if shard not in done_before:
            context.log_event(
                dg.AssetMaterialization(
                    context.asset_key,
                    partition=shard,
                    metadata=describe(report),
                    tags=_versions(context, shard, code_version, report.data_version),
                )
            )
    if failed:
        kind = UnavailableError if passing else StageError
        raise kind(describe_failures(failed, len(context.partition_keys)))


def describe_failures(failed: dict[str, str], num_shards: int) -> str:
    """Return one message for the shards that failed: a reason that several share is said once."""
    if num_shards == 1:
        return next(iter(failed.values()))
    shards_of: dict[str, list[str]] = {}
    for shard, reason in failed.items():
        shards_of.setdefault(reason, []).append(shard)
    lines = [
        f"Expected {num_shards} shards to be usable; {len(failed)} are not, and the others are "
        "done. Repair them and run them again:"
    ]
    for reason, shards in list(shards_of.items())[:_NUM_NAMED]:
        lines.append(f"- {_name(shards)}: {reason}")
    if len(shards_of) > _NUM_NAMED:
        lines.append(f"- and {len(shards_of) - _NUM_NAMED} more reasons, in the log")
    return "\n".join(lines)


def _name(shards: list[str]) -> str:
    more = f" and {len(shards) - _NUM_NAMED} more" if len(shards) > _NUM_NAMED else ""
    return ", ".join(shards[:_NUM_NAMED]) + more


def _logged_in_this_run(context: dg.AssetExecutionContext) -> set[str]:
    """Return the shards that an earlier attempt of this step has materialised."""
    records = context.instance.get_records_for_run(
        context.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    ).records
    return {
        record.partition_key
        for record in records
        if record.asset_key == context.asset_key and record.partition_key is not None
    }


def _versions(
    context: dg.AssetExecutionContext, shard: str, code_version: str, data_version: str
) -> dict[str, str]:
    """Return the tags that Dagster's 'unsynced' goes by: what was made, from what."""
    tags = {
        CODE_VERSION_TAG: code_version,
        DATA_VERSION_TAG: data_version,
        DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
    }
    for parent in sorted(_parents(context)):
        record = _latest(context.instance, parent, shard)
        version = None if record is None else _data_version(record)
        tags[get_input_data_version_tag(parent)] = version or DEFAULT_DATA_VERSION.value
        tags[get_input_event_pointer_tag(parent)] = (
            NULL_EVENT_POINTER if record is None else str(record.storage_id)
        )
    return tags


def _parents(context: dg.AssetExecutionContext) -> Iterable[dg.AssetKey]:
    return context.assets_def.asset_deps[context.asset_key]


def _latest(
    instance: dg.DagsterInstance, parent: dg.AssetKey, shard: str
) -> dg.EventLogRecord | None:
    """Return the parent's latest materialisation; of this shard, where it has shards."""
    records = instance.fetch_materializations(parent, limit=1).records
    if records and records[0].partition_key is not None:
        of_shard = dg.AssetRecordsFilter(parent, asset_partitions=[shard])
        records = instance.fetch_materializations(of_shard, limit=1).records
    return records[0] if records else None


def _data_version(record: dg.EventLogRecord) -> str | None:
    materialisation = record.asset_materialization
    return None if materialisation is None else (materialisation.tags or {}).get(DATA_VERSION_TAG)
