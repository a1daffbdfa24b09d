"""What Dagster shows and believes of a finished run: versions, checks, verdicts that outlive it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from main_job import write_config

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import LABELS
from agetf_pipeline.data.tables import read_table, write_table

pytestmark = pytest.mark.slow
LABEL_CHECKS = [
    dg.AssetCheckKey(dg.AssetKey("moe_labels"), name)
    for name in ("labels_expectations", "label_drift")
]


@dataclass(frozen=True)
class Deployment:
    """A copy of a finished run that a test may change."""

    workspace: Workspace
    instance: dg.DagsterInstance

    def materialise(
        self, *assets: str, checks: bool = True, overrides=()
    ) -> dg.ExecuteInProcessResult:
        from definitions import defs

        job = defs.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey(name) for name in assets]
        everything = defs.resolve_asset_graph().asset_check_keys
        chosen = {key for key in everything if key.asset_key in keys} if checks else set()
        return self._run(
            job.get_subset(asset_selection=set(keys), asset_check_selection=chosen), overrides
        )

    def check(self, *keys: dg.AssetCheckKey) -> dg.ExecuteInProcessResult:
        from definitions import defs

        job = defs.resolve_implicit_global_asset_job_def()
        return self._run(job.get_subset(asset_selection=set(), asset_check_selection=set(keys)), ())

    def _run(self, job: dg.JobDefinition, overrides) -> dg.ExecuteInProcessResult:
        configured = {"pipeline": {"config": {"overrides": list(overrides)}}}
        quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
        return job.execute_in_process(
            instance=self.instance, raise_on_error=False,
            run_config={"resources": configured, "loggers": quiet},
        )  # fmt: skip

    def unsynced(self) -> set[str]:
        """Return what the UI calls unsynced, assets and partitions of them."""
        from definitions import defs

        graph = defs.resolve_asset_graph()
        resolver = CachingStaleStatusResolver(
            self.instance, graph, LoadingContextForTest(self.instance)
        )
        shards = self.instance.get_dynamic_partitions("caf_shards")
        found = set()
        for key in graph.executable_asset_keys:
            for shard in shards if graph.get(key).is_partitioned else [None]:
                if resolver.get_status(key, shard) is not StaleStatus.FRESH:
                    found.add(
                        key.to_user_string() if shard is None else f"{key.to_user_string()}/{shard}"
                    )
        return found


@pytest.fixture
def deployment(graph_run, tmp_path, monkeypatch) -> Iterator[Deployment]:
    root, home = tmp_path / "workspace", tmp_path / "home"
    shutil.copytree(graph_run.workspace.root, root)
    shutil.copytree(graph_run.home, home)
    monkeypatch.setenv("AGETF_CONFIG", str(write_config(tmp_path, root)))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        yield Deployment(Workspace(root), instance)


def test_unsynced_means_what_it_says(deployment):
    assert deployment.unsynced() == set()
    # Made again of the same things: whatever comes after it is as good as before.
    assert deployment.materialise("keep_list", "moe_labels").success
    assert deployment.unsynced() == set()
    # Made of something else: exactly what reads it is out of date.
    assert deployment.materialise("keep_list", overrides=["filter.max_sigma_years=59.5"]).success
    assert deployment.unsynced() == {"training_manifest"}
    assert deployment.materialise("keep_list").success
    assert deployment.unsynced() == set()


def test_a_changed_shard_makes_what_reads_it_unsynced(deployment):
    from definitions import defs

    manifest = deployment.workspace.raw_caf / "shard-0001" / "manifest.csv"
    lines = manifest.read_text().splitlines()
    removed = lines.pop().split(",")[0]
    manifest.write_text("\n".join(lines) + "\n")
    (manifest.parent / removed).unlink()
    job = defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={dg.AssetKey("caf_images")}
    )
    for shard in ("shard-0000", "shard-0001"):
        assert job.execute_in_process(instance=deployment.instance, partition_key=shard).success
    readers = {"caf_captions", "caf_enhanced", "caf_predictions"}
    expected = {f"{name}/shard-0001" for name in readers} | {"evaluators", "experts"}
    assert deployment.unsynced() == expected


def test_a_table_that_a_check_found_unfit_is_refused_by_a_later_run(deployment):
    bad = read_table(deployment.workspace, LABELS, ["ffhq_aging"])
    good = bad.clone()
    bad = bad.with_columns(pl.lit(130.0, pl.Float32).alias("age_years"))
    write_table(deployment.workspace, LABELS, "ffhq_aging", bad)
    judged, drift = deployment.check(*LABEL_CHECKS).get_asset_check_evaluations()
    assert not judged.passed
    assert judged.severity is dg.AssetCheckSeverity.ERROR
    shown = judged.metadata["rows_that_break_age_in_range"].value.records
    assert [row.data["age_years"] for row in shown] == ["130.0"] * 5
    assert not drift.passed
    assert drift.severity is dg.AssetCheckSeverity.WARN

    refused = deployment.materialise("keep_list")
    assert not refused.success
    (failure,) = [e for e in refused.get_step_failure_events() if e.step_key == "keep_list"]
    assert "moe_labels/labels_expectations" in str(failure.step_failure_data)
    assert deployment.materialise("keep_list", overrides=["quality.refuse_blocked=false"]).success
    # Repaired: the verdict speaks of other bytes, and nobody has to say so.
    write_table(deployment.workspace, LABELS, "ffhq_aging", good)
    assert deployment.materialise("keep_list").success


def test_every_check_shows_its_verdicts_and_its_page(graph_run, monkeypatch):
    from definitions import defs

    monkeypatch.setenv("DAGSTER_HOME", str(graph_run.home))
    with dg.DagsterInstance.get() as instance:
        for key in defs.resolve_asset_graph().asset_check_keys:
            (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
            judged = record.event.dagster_event.event_specific_data
            if key.name == "caf_shards_on_disk":
                continue
            assert {"rows", "num_expectations", "expectations", "data_docs"} <= set(judged.metadata)
            assert Path(judged.metadata["data_docs"].value).is_file()
            assert judged.description
    index = graph_run.workspace.stats / "quality" / "data_docs" / "index.html"
    assert "moe_labels/labels_expectations" in index.read_text()


def test_every_materialisation_has_counts_something_to_look_at_and_a_version(
    graph_run, monkeypatch
):
    from definitions import defs

    monkeypatch.setenv("DAGSTER_HOME", str(graph_run.home))
    with dg.DagsterInstance.get() as instance:
        for key in defs.resolve_asset_graph().executable_asset_keys:
            event = instance.get_latest_materialization_event(key)
            materialisation = event.asset_materialization
            tags, metadata = materialisation.tags, materialisation.metadata
            assert tags["dagster/data_version_is_user_provided"] == "true", key
            assert len(tags["dagster/data_version"]) == 64, key
            assert any(name.startswith("num_") for name in metadata), key
            assert any(name.startswith("file_") for name in metadata), key
            looks = ("table_", "picture_", "rows_", "files_", "network_", "partitions", "mlflow_")
            assert any(name.startswith(looks) for name in metadata), (key, sorted(metadata))
        registered = instance.get_latest_materialization_event(dg.AssetKey("registered_model"))
    shown = registered.asset_materialization.metadata
    assert shown["mlflow_model"].value == "models:/age-transformer/1"
    assert Path(shown["mlflow_database"].value) == graph_run.workspace.root / "mlflow.db"


def test_an_mlflow_server_is_linked_by_its_page(tmp_path):
    from agetf_pipeline.core.files import write_json
    from agetf_pipeline.stages.base import StageReport
    from assets.showing import report_metadata

    model = {"model": "models:/age-transformer/7", "champion": True}
    record = {**model, "tracking_uri": "https://mlflow.example:5000/", "mixture": None}
    write_json(tmp_path / "registration.json", record)
    report = StageReport("register", outputs={"registration": "registration.json"})
    metadata = report_metadata(report, Workspace(tmp_path))
    page = "https://mlflow.example:5000/#/models/age-transformer/versions/7"
    assert metadata["mlflow_model_page"] == dg.MetadataValue.url(page)
    assert "mlflow_database" not in metadata
