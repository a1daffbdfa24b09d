"""Old runs and their events: Dagster keeps them for ever, unless somebody removes them."""

import os
from datetime import UTC, datetime, timedelta

import dagster as dg

from agetf_pipeline.core.errors import ConfigError

_VARIABLE = "AGETF_KEEP_RUNS_DAYS"
_DEFAULT_DAYS = 180
_BATCH = 500
_FINISHED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


def days_kept() -> int:
    """Return after how many days a run may go: AGETF_KEEP_RUNS_DAYS, or 180.

    Raises:
        ConfigError: It is no number of days.
    """
    text = os.environ.get(_VARIABLE) or str(_DEFAULT_DAYS)
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(
            f"Expected a number of days, 1 or more, in {_VARIABLE}; found {text!r}. Correct it, or "
            f"remove it for {_DEFAULT_DAYS}."
        )
    return int(text)


def remove_old_runs(
    instance: dg.DagsterInstance,
    assets: set[dg.AssetKey],
    checks: set[dg.AssetCheckKey],
    before: datetime,
) -> int:
    """Remove finished runs with their events and logs; return how many.

    A run stays that made what an asset, or one of its partitions, is now, or that gave a check its
    last verdict: without its events, Dagster would show these as never made.

    Args:
        instance: The instance.
        assets: Assets whose state is to be kept.
        checks: Checks whose verdict is to be kept.
        before: Runs that were last heard of before may go.
    """
    old = instance.get_run_ids(dg.RunsFilter(statuses=_FINISHED, updated_before=before))
    needed = _runs_of_assets(instance, assets) | _runs_of_checks(instance, checks)
    removed = [run_id for run_id in old if run_id not in needed]
    for run_id in removed:
        instance.delete_run(run_id)
        logs = instance.compute_log_manager
        if hasattr(logs, "delete_logs"):
            logs.delete_logs(prefix=[run_id])
    return len(removed)


def _runs_of_assets(instance: dg.DagsterInstance, assets: set[dg.AssetKey]) -> set[str]:
    runs = set()
    for asset in assets:
        newest = instance.get_latest_materialization_event(asset)
        if newest is not None:
            runs.add(newest.run_id)
        by_partition = instance.event_log_storage.get_latest_storage_id_by_partition(
            asset, dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        ids = list(by_partition.values())
        for start in range(0, len(ids), _BATCH):
            some = ids[start : start + _BATCH]
            chosen = dg.AssetRecordsFilter(asset_key=asset, storage_ids=some)
            found = instance.fetch_materializations(chosen, limit=_BATCH)
            runs |= {record.run_id for record in found.records}
    return runs


def _runs_of_checks(instance: dg.DagsterInstance, checks: set[dg.AssetCheckKey]) -> set[str]:
    storage = instance.event_log_storage
    found = storage.get_latest_asset_check_execution_by_key(list(checks))
    return {record.run_id for record in found.values() if record is not None}


@dg.op
def remove_runs(context: dg.OpExecutionContext) -> None:
    """Remove what `remove_old_runs` may."""
    from definitions import defs

    before = datetime.now(UTC) - timedelta(days=days_kept())
    assets = set(context.instance.get_asset_keys())
    checks = set(defs.resolve_asset_graph().asset_check_keys)
    number = remove_old_runs(context.instance, assets, checks, before)
    context.log.info(f"{number} runs removed that ended before {before:%Y-%m-%d}")


@dg.job(
    name="remove_old_runs",
    description="Removes runs that ended long ago and that no asset's state rests on.",
)
def remove_old_runs_job() -> None:
    """Look through the runs of the instance."""
    remove_runs()
