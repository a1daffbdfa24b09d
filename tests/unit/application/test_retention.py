"""Old runs go, unless something in Dagster rests on them."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from agetf_pipeline.core.errors import ConfigError
from jobs.retention import days_kept, remove_old_runs

SHARDS = dg.StaticPartitionsDefinition(["a", "b"])


@dg.asset
def table() -> None: ...


@dg.asset(partitions_def=SHARDS)
def images() -> None: ...


@dg.asset_check(asset=table)
def table_check() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset
def broken() -> None:
    raise RuntimeError


def test_runs_go_that_nothing_rests_on():
    with dg.DagsterInstance.ephemeral() as instance:

        def run(what, partition: str | None = None, only=None) -> str:
            return dg.materialize(
                what,
                instance=instance,
                partition_key=partition,
                raise_on_error=False,
                selection=only,
            ).run_id

        check = dg.AssetSelection.checks(table_check)
        superseded = [run([table]), run([images], "a"), run([broken]), run([table, table_check])]
        needed = [
            run([table]),
            run([images], "a"),
            run([images], "b"),
            run([table, table_check], only=check),
        ]
        later = datetime.now(UTC) + timedelta(seconds=1)
        assets = {table.key, images.key, broken.key}
        earlier = datetime.now(UTC) - timedelta(days=1)
        assert remove_old_runs(instance, assets, set(table_check.check_keys), earlier) == 0
        assert remove_old_runs(instance, assets, set(table_check.check_keys), later) == 4
        assert set(instance.get_run_ids()) == set(needed)
        assert instance.get_materialized_partitions(images.key) == {"a", "b"}
        assert instance.get_latest_materialization_event(table.key) is not None
        assert not instance.get_records_for_run(superseded[0]).records


def test_how_long_runs_are_kept(monkeypatch):
    monkeypatch.delenv("AGETF_KEEP_RUNS_DAYS", raising=False)
    assert days_kept() == 180
    monkeypatch.setenv("AGETF_KEEP_RUNS_DAYS", "30")
    assert days_kept() == 30
    monkeypatch.setenv("AGETF_KEEP_RUNS_DAYS", "0")
    with pytest.raises(ConfigError, match="AGETF_KEEP_RUNS_DAYS"):
        days_kept()


def test_the_job_runs_on_the_definitions(monkeypatch):
    from definitions import defs

    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def("remove_old_runs")
        assert job.execute_in_process(instance=instance).success
