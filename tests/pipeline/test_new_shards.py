"""CAF shards that arrive, change and go, as the sensor, the check and a run see them."""

import shutil

import dagster as dg
import pytest
from tiny_shards import write_config, write_shard

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.stages.ingest import CODE_VERSION
from resources.pipeline import CONFIG_VARIABLE, PipelineResource

IMAGES = dg.AssetKey("caf_images")


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    config = write_config(tmp_path, tmp_path / "workspace", "ingest: {num_workers: 1}\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def instance(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield instance


class Ticks:
    """The sensor as the daemon evaluates it: partitions are added, the cursor comes back."""

    def __init__(self, instance) -> None:
        self.instance, self.cursor = instance, None

    def tick(self, taken: bool = True) -> tuple[dict[str | None, str | None], str | None]:
        """Return the requested runs (partition to run key) and the reason why there is none."""
        from jobs.sensors import new_caf_shards

        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = new_caf_shards(context, pipeline=PipelineResource())
        assert isinstance(result, dg.SensorResult)
        if taken:
            for request in result.dynamic_partitions_requests or []:
                self.instance.add_dynamic_partitions(
                    request.partitions_def_name, list(request.partition_keys)
                )
            self.cursor = result.cursor
        requests = {run.partition_key: run.run_key for run in result.run_requests or []}
        return requests, result.skip_reason.skip_message if result.skip_reason else ""


def run_images(instance, shards) -> dg.ExecuteInProcessResult:
    from definitions import defs

    known = set(instance.get_dynamic_partitions("caf_shards"))
    instance.add_dynamic_partitions("caf_shards", [s for s in shards if s not in known])
    return defs.resolve_job_def("caf_shard").execute_in_process(
        instance=instance,
        asset_selection=[IMAGES],
        tags={
            "dagster/asset_partition_range_start": shards[0],
            "dagster/asset_partition_range_end": shards[-1],
        },
        raise_on_error=False,
    )


def events_of(instance) -> list[str]:
    """Return the shards of all materialisations, in the order they were logged."""
    records = instance.fetch_materializations(IMAGES, limit=100, ascending=True).records
    return [record.partition_key for record in records]


def test_a_complete_shard_is_requested_once_and_again_when_it_changes(workspace, instance):
    ticks = Ticks(instance)
    for number, name in enumerate(("a", "b")):
        write_shard(workspace, name, number)
    requests, _ = ticks.tick()
    assert set(requests) == {"a", "b"} == set(instance.get_dynamic_partitions("caf_shards"))
    assert all(key and key.startswith(f"{name}:") for name, key in requests.items())
    assert len(requests["a"] or "") == len("a:") + 12
    assert ticks.tick() == ({}, "No new shard: 2 complete, all asked for.")
    write_shard(workspace, "c", 2)
    manifest = workspace.raw_caf / "a" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("a-0", "ann"))
    again, _ = ticks.tick()
    assert set(again) == {"a", "c"}
    assert again["a"] != requests["a"]
    assert ticks.tick()[0] == {}


def test_a_tick_that_was_lost_is_made_up_for(workspace, instance):
    ticks = Ticks(instance)
    write_shard(workspace, "a", 0)
    lost, _ = ticks.tick(taken=False)
    made_up, _ = ticks.tick()
    assert lost == made_up
    assert ticks.tick()[0] == {}


def test_shards_that_are_not_complete_are_named_and_stop_no_other(workspace, instance):
    ticks = Ticks(instance)
    write_shard(workspace, "good", 0)
    (write_shard(workspace, "part", 1, 2) / "1.png").unlink()
    (write_shard(workspace, "cut", 2) / "manifest.csv").write_text("path;subject;age\n")
    write_shard(workspace, "my photos", 3)
    assert set(ticks.tick()[0]) == {"good"}
    assert instance.get_dynamic_partitions("caf_shards") == ["good"]
    message = ticks.tick()[1]
    assert message is not None
    assert "1 complete" in message
    assert "part is incomplete: Of 2 files that manifest.csv lists: 1 missing (1.png)." in message
    assert "cut is broken" in message
    assert "my photos is badly named" in message


def test_many_shards_are_asked_for_over_several_ticks(workspace, instance, monkeypatch):
    monkeypatch.setattr("jobs.sensors.MAX_REQUESTS", 2)
    ticks = Ticks(instance)
    for number, name in enumerate("abcde"):
        write_shard(workspace, name, number)
    seen = [sorted(map(str, ticks.tick()[0])) for _ in range(4)]
    assert seen == [["a", "b"], ["c", "d"], ["e"], []]
    assert instance.get_dynamic_partitions("caf_shards") == list("abcde")


def test_a_removed_shard_keeps_its_partition_and_fails_nothing_else(workspace, instance):
    ticks = Ticks(instance)
    for number, name in enumerate(("a", "b", "c")):
        write_shard(workspace, name, number)
    ticks.tick()
    assert run_images(instance, ["a", "b", "c"]).success
    shutil.rmtree(workspace.raw_caf / "b")
    requests, message = ticks.tick()
    assert (requests, message is None) == ({}, False)
    assert "b is removed: Its folder is no longer in" in str(message)
    assert set(instance.get_dynamic_partitions("caf_shards")) == {"a", "b", "c"}
    result = run_images(instance, ["a"])
    assert result.success
    [check] = [
        c for c in result.get_asset_check_evaluations() if c.check_name == "caf_shards_on_disk"
    ]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    table = check.metadata["shards"]
    assert isinstance(table, dg.TableMetadataValue)
    [row] = table.records
    assert (row.data["shard"], row.data["state"]) == ("b", "removed")
    assert "docs/shards.md" in str(row.data["what to do"])


def test_shards_made_before_the_sensor_was_on_are_not_requested(workspace, instance):
    for number, name in enumerate(("a", "b")):
        write_shard(workspace, name, number)
    run_images(instance, ["a"])
    assert set(Ticks(instance).tick()[0]) == {"b"}


def test_one_event_a_shard_with_its_own_versions(workspace, instance):
    for number, name in enumerate(("a", "b", "c")):
        write_shard(workspace, name, number)
    assert run_images(instance, ["a", "b", "c"]).success
    assert events_of(instance) == ["a", "b", "c"]
    assert instance.get_materialized_partitions(IMAGES) == {"a", "b", "c"}
    records = instance.fetch_materializations(IMAGES, limit=10).records
    tags = [record.asset_materialization.tags for record in records]
    assert len({tag["dagster/data_version"] for tag in tags}) == 3
    assert {tag["dagster/code_version"] for tag in tags} == {CODE_VERSION}
    assert all("dagster/input_data_version/synthetic_corpus" in tag for tag in tags)
    assert all(record.asset_materialization.metadata["num_images"].value == 1 for record in records)


def test_dagster_calls_finished_shards_fresh_and_changed_parents_stale(workspace, instance):
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
    from dagster._core.loader import LoadingContextForTest

    from definitions import defs

    write_shard(workspace, "a", 0)
    run_images(instance, ["a"])
    graph = defs.resolve_asset_graph()

    def status() -> StaleStatus:
        loading = LoadingContextForTest(instance)
        return CachingStaleStatusResolver(instance, graph, loading).get_status(IMAGES, "a")

    assert status() == StaleStatus.FRESH
    instance.report_runless_asset_event(
        dg.AssetMaterialization("synthetic_corpus", tags={"dagster/data_version": "another"})
    )
    assert status() == StaleStatus.STALE
    run_images(instance, ["a"])
    assert status() == StaleStatus.FRESH


def test_a_bad_shard_fails_the_step_after_the_others_are_done(workspace, instance):
    for number, name in enumerate(("a", "b", "c")):
        write_shard(workspace, name, number)
    (workspace.raw_caf / "b" / "manifest.csv").write_text("path,subject\n")
    result = run_images(instance, ["a", "b", "c"])
    assert not result.success
    assert events_of(instance) == ["a", "c"]
    [failure] = result.get_step_failure_events()
    assert "- b: Expected the columns path,subject,age" in str(failure.step_failure_data)
