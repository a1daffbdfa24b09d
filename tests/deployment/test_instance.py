"""The instance of a deployment, its configs, and the names its webserver answers to."""

import importlib.util
from pathlib import Path

import pytest
import yaml
from dagster._core.instance.ref import InstanceRef

from agetf_pipeline.config import load_config, workspace_of
from agetf_pipeline.core.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "docker"
ENVIRONMENT = {
    "DAGSTER_PG_HOST": "127.0.0.1",
    "DAGSTER_PG_PORT": "5432",
    "DAGSTER_PG_DB": "dagster",
    "DAGSTER_PG_USER": "dagster",
    "DAGSTER_PG_PASSWORD": "Dag-ster.7~",
}


def test_the_joined_instance_file_is_one_that_dagster_reads(tmp_path, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AGETF_LOGS", str(tmp_path / "logs"))
    parts = [REPOSITORY / "configs" / "dagster.yaml", DOCKER / "dagster.yaml"]
    texts = [part.read_text(encoding="utf-8") for part in parts]
    keys = [set(yaml.safe_load(text)) for text in texts]
    assert not keys[0] & keys[1]
    (tmp_path / "dagster.yaml").write_text("".join(texts))
    reference = InstanceRef.from_dir(str(tmp_path))
    assert type(reference.compute_log_manager).__name__ == "LocalComputeLogManager"
    assert type(reference.run_launcher).__name__ == "DefaultRunLauncher"
    storage = reference.storage_data
    assert storage.class_name == "DagsterPostgresStorage"
    # Plain `postgresql` is another driver to SQLAlchemy 2.1.
    assert storage.config_dict["postgres_db"]["scheme"] == "postgresql+psycopg2"


@pytest.mark.parametrize("name", ["demo.yaml", "base.yaml"])
def test_a_config_for_containers_changes_the_places_alone(name):
    deployed = load_config(DOCKER / name)
    plain = load_config(REPOSITORY / "configs" / name)
    assert workspace_of(deployed).root == Path("/workspace")
    assert deployed.register_model.tracking_uri == "http://mlflow:5000"
    assert deployed.train.settings() == plain.train.settings()
    assert deployed.enhance.settings() == plain.enhance.settings()


@pytest.mark.parametrize("root", ["s3://bucket/agetf", "gs://bucket", "file:///srv/agetf"])
def test_a_workspace_named_by_a_uri_is_refused_with_what_to_do(root):
    override = f"workspace.root={root}"
    with pytest.raises(ConfigError, match=r"mount a\s+shared volume"):
        load_config(REPOSITORY / "configs" / "demo.yaml", [override])


def test_the_webserver_answers_to_loopback_and_to_what_the_deployment_names(monkeypatch):
    spec = importlib.util.spec_from_file_location("deployed_webserver", DOCKER / "webserver.py")
    webserver = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(webserver)
    monkeypatch.delenv("AGETF_HOSTS", raising=False)
    assert set(webserver.allowed_hosts()) == {"127.0.0.1", "localhost", "[::1]"}
    monkeypatch.setenv("AGETF_HOSTS", "Ages.example.org, ,b.example.org")
    assert webserver.allowed_hosts()[3:] == ["ages.example.org", "b.example.org"]
