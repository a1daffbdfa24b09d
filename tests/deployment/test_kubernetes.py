"""The values for Dagster's Helm chart and the manifests, against Kubernetes' own models."""

import re
from pathlib import Path

import dagster as dg
import kubernetes.client as k8s
import pytest
import yaml
from dagster._core.definitions.automation_tick_evaluation_context import (
    build_run_requests_with_backfill_policies,
)
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.instance.ref import InstanceRef
from dagster_k8s.job import UserDefinedDagsterK8sConfig
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict

from agetf_pipeline import cli
from agetf_pipeline.core.errors import ConfigError
from assets.partitions import shards_per_run
from jobs.executors import cpu_requests, deployed_executor, gpu_requests
from resources.gpu import GPU_POOL

REPOSITORY = Path(__file__).resolve().parents[2]
KUBERNETES = REPOSITORY / "docker" / "k8s"
MODELS = {
    "PersistentVolumeClaim": k8s.V1PersistentVolumeClaim,
    "Deployment": k8s.V1Deployment,
    "Service": k8s.V1Service,
    "NetworkPolicy": k8s.V1NetworkPolicy,
}
IMAGES = {"agetf-daemon", "agetf-webserver", "agetf-code-cuda", "agetf-mlflow"}


@pytest.fixture(scope="module")
def values() -> dict:
    return yaml.safe_load((KUBERNETES / "values.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def manifests() -> dict[tuple[str, str], dict]:
    text = (KUBERNETES / "manifests.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load_all(text)
    return {(item["kind"], item["metadata"]["name"]): item for item in found}


def snake(value):
    """Return what the chart makes of keys such as `podSpecConfig`; Kubernetes' own keys stay."""
    return {re.sub(r"(?<!^)([A-Z0-9]+)", r"_\1", key).lower(): item for key, item in value.items()}


def check(model, value):
    """Fail where Kubernetes knows no such key or value."""
    return k8s_model_from_dict(model, k8s_snake_case_dict(model, value))


def test_the_manifests_are_kubernetes_objects(manifests):
    for (kind, _), manifest in manifests.items():
        assert check(MODELS[kind], manifest)


def test_the_pods_of_the_values_are_kubernetes_objects(values):
    code = values["dagster-user-deployments"]["deployments"][0]
    for part in (code, values["dagsterWebserver"], values["dagsterDaemon"]):
        for volume in part.get("volumes", []):
            check(k8s.V1Volume, volume)
        for mount in part.get("volumeMounts", []):
            check(k8s.V1VolumeMount, mount)
        check(k8s.V1PodSecurityContext, part["podSecurityContext"])
        check(k8s.V1SecurityContext, part["securityContext"])
        check(k8s.V1ResourceRequirements, part["resources"])
        assert part["podSecurityContext"]["runAsNonRoot"] is True
        assert part["image"]["repository"] in IMAGES


def test_the_instance_that_the_chart_renders_is_one_that_dagster_reads(values, tmp_path):
    launcher = snake(values["runLauncher"]["config"]["k8sRunLauncher"])
    launcher["run_k8s_config"] = snake(launcher.pop("run_k8s_config"))
    custom = values["computeLogManager"]["config"]["customComputeLogManager"]
    instance = {
        "run_launcher": {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": {
                "dagster_home": values["global"]["dagsterHome"],
                "instance_config_map": "dagster-instance",
                "postgres_password_secret": values["global"]["postgresqlSecretName"],
                "service_account_name": "dagster",
                **launcher,
            },
        },
        "compute_logs": custom | {"config": {"base_dir": str(tmp_path)}},
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": values["dagsterDaemon"]["runCoordinator"]["type"],
            "config": snake(
                values["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
            ),
        },
        "run_monitoring": snake(values["dagsterDaemon"]["runMonitoring"]),
        **values["additionalInstanceConfig"],
    }
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(instance))
    reference = InstanceRef.from_dir(str(tmp_path))
    assert type(reference.compute_log_manager).__name__ == "LocalComputeLogManager"
    assert reference.run_launcher_data.class_name == "K8sRunLauncher"
    assert type(reference.run_coordinator).__name__ == "QueuedRunCoordinator"


def test_the_database_is_reached_by_the_driver_that_is_installed(values):
    assert values["postgresql"]["enabled"] is False
    assert values["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"
    assert values["generatePostgresqlPasswordSecret"] is False
    assert "postgresqlPassword" not in values["postgresql"]


def test_queue_pools_and_retention_are_those_of_one_machine(values):
    local = yaml.safe_load((REPOSITORY / "configs" / "dagster.yaml").read_text(encoding="utf-8"))
    for section in ("concurrency", "freshness", "nux"):
        assert values["additionalInstanceConfig"][section] == local[section]
    kept = {snake({kind: None}).popitem()[0]: kept for kind, kept in values["retention"].items()}
    for kind, settings in local["retention"].items():
        assert kept[kind]["purgeAfterDays"] == settings["purge_after_days"]
    managed = values["pythonLogs"]["managedPythonLoggers"]
    assert managed == local["python_logs"]["managed_python_loggers"]


def test_volumes_and_services_that_are_named_exist(values, manifests):
    code = values["dagster-user-deployments"]["deployments"][0]
    for part in (code, values["dagsterWebserver"]):
        for volume in part["volumes"]:
            claim = volume.get("persistentVolumeClaim")
            if claim:
                manifest = manifests[("PersistentVolumeClaim", claim["claimName"])]
                assert manifest["spec"]["accessModes"] == ["ReadWriteMany"]
    environment = {item["name"]: item["value"] for item in code["env"]}
    assert environment["AGETF_EXECUTOR"] == "k8s"
    assert (REPOSITORY / environment["AGETF_CONFIG"]).is_file()
    assert manifests[("Service", "mlflow")]["spec"]["ports"][0]["port"] == 5000


def test_steps_run_in_the_process_unless_the_deployment_says_otherwise(monkeypatch):
    monkeypatch.delenv("AGETF_EXECUTOR", raising=False)
    assert deployed_executor([]) is dg.in_process_executor
    monkeypatch.setenv("AGETF_EXECUTOR", "celery")
    with pytest.raises(ConfigError, match="in_process, processes or k8s"):
        deployed_executor([])


def test_each_step_of_the_gpu_pool_asks_for_its_gpus(monkeypatch):
    import definitions

    monkeypatch.setenv("AGETF_EXECUTOR", "k8s")
    monkeypatch.setenv("AGETF_STEP_GPUS", "1,age_transformer=4")
    executor = deployed_executor(definitions._ASSETS)
    assert executor.name == "k8s"
    resolved = executor.apply_config_mapping({"config": {}})
    assert resolved.success, resolved.errors
    steps = resolved.value["config"]["per_step_k8s_config"]
    graph = definitions.defs.resolve_asset_graph()
    pooled = {
        key.to_user_string()
        for key in graph.toposorted_asset_keys
        if GPU_POOL in (graph.get(key).pools or set())
    }
    assert set(steps) == pooled
    assert pooled
    for name, request in steps.items():
        wanted = "4" if name == "age_transformer" else "1"
        container = request["container_config"]
        assert container["resources"]["limits"] == {"nvidia.com/gpu": wanted}
        UserDefinedDagsterK8sConfig.from_dict(request)
        for toleration in request["pod_spec_config"]["tolerations"]:
            check(k8s.V1Toleration, toleration)


def test_each_step_is_told_the_cores_that_its_pod_asks_for(monkeypatch):
    import definitions

    monkeypatch.setenv("AGETF_EXECUTOR", "k8s")
    monkeypatch.setenv("AGETF_STEP_CPUS", "4,caf_captions=16")
    resolved = deployed_executor(definitions._ASSETS).apply_config_mapping({"config": {}})
    assert resolved.success, resolved.errors
    steps = resolved.value["config"]["per_step_k8s_config"]
    assert {"caf_images", "caf_captions", "training_manifest"} <= set(steps)
    for name, request in steps.items():
        UserDefinedDagsterK8sConfig.from_dict(request)
        container = request["container_config"]
        cores = "16" if name == "caf_captions" else "4"
        assert container["resources"]["requests"] == {"cpu": cores}
        assert container["env"] == [{"name": "OMP_NUM_THREADS", "value": cores}]
    # What a step of the pool asks for besides stays.
    limits = steps["caf_captions"]["container_config"]["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": "1"}
    assert cpu_requests(["train"], "0") == {}
    with pytest.raises(ConfigError, match="AGETF_STEP_CPUS"):
        cpu_requests(["train"], "all")


def test_a_backfill_of_a_thousand_shards_is_forty_runs_of_all_four_assets():
    import definitions

    graph = definitions.defs.resolve_asset_graph()
    job = definitions.defs.resolve_job_def("caf_shard")
    keys = job.asset_layer.selected_asset_keys
    shards = [f"s{number:04d}" for number in range(1000)]
    wanted = {AssetKeyPartitionKey(key, shard) for key in keys for shard in shards}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("caf_shards", shards)
        with partition_loading_context(dynamic_partitions_store=instance):
            runs = build_run_requests_with_backfill_policies(wanted, graph, instance)
    assert len(runs) == 1000 / shards_per_run() == 40
    assert all(set(run.asset_selection or ()) == keys for run in runs)
    ends = [run.tags["dagster/asset_partition_range_end"] for run in runs]
    assert sorted(ends) == shards[24::25]


def test_fewer_shards_in_a_run_are_a_variable_of_the_deployment(monkeypatch):
    monkeypatch.setenv("AGETF_SHARDS_PER_RUN", "1")
    assert shards_per_run() == 1
    monkeypatch.setenv("AGETF_SHARDS_PER_RUN", "0")
    with pytest.raises(ConfigError, match="AGETF_SHARDS_PER_RUN"):
        shards_per_run()


def test_the_pods_that_join_are_those_of_a_step(values):
    job = yaml.safe_load((KUBERNETES / "join.yaml").read_text(encoding="utf-8"))
    assert check(k8s.V1Job, job)
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    code = values["dagster-user-deployments"]["deployments"][0]
    image = code["image"]
    assert container["image"] == f"{image['repository']}:{image['tag']}"
    assert all(mount in code["volumeMounts"] for mount in container["volumeMounts"])
    assert all(volume in code["volumes"] for volume in pod["volumes"])
    assert pod["securityContext"] == code["podSecurityContext"]
    environment = {item["name"]: item["value"] for item in code["env"]}
    assert container["env"][0]["value"] == environment["AGETF_STEP_CPUS"]
    command = container["command"]
    assert command[command.index("--config") + 1] == environment["AGETF_CONFIG"]
    options = cli._parse(cli._parser(), command[1:])
    assert (options.stage, options.wait) == ("predict", 600)


@pytest.mark.parametrize("spelling", ["one", "1,train=", "1,unknown=2", "", "-1"])
def test_a_misspelt_number_of_gpus_is_refused(spelling):
    with pytest.raises(ConfigError, match="AGETF_STEP_GPUS"):
        gpu_requests(["train", "experts"], spelling)


def test_no_gpus_is_a_cluster_without_them():
    assert gpu_requests(["train"], "0") == {}
