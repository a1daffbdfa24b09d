"""A tracking server that is killed in the middle and comes back; a database that is locked."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import LoggedModelStatus
from mlflow_server import MlflowServer
from small_registry import MODEL, make_registry

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import UnavailableError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import LABELS
from agetf_pipeline.data.tables import read_table
from agetf_pipeline.registry import history, tracking, versions
from agetf_pipeline.registry.label_run import pending_path
from agetf_pipeline.registry.promotion import Decision
from agetf_pipeline.registry.registering import Candidate, register
from agetf_pipeline.stages import relabel

EXPERIMENT = "of-the-test"
FIGURES = {"renderings/age_mae_years": {"value": 3.5}, "renderings/id_similarity": {"value": None}}
CANDIDATE = Candidate(
    MODEL, "Nothing.", EXPERIMENT, "run-a", "identity-a", "a" * 64, True, "synthetic", FIGURES, ()
)  # fmt: skip
HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> bytes:
    """An SQLite file without versions: MLflow takes seconds to make its tables."""
    workspace = make_registry(tmp_path_factory.mktemp("tables"), 0)
    return (workspace.root / "mlflow.db").read_bytes()


@pytest.fixture
def server(tmp_path, database, monkeypatch) -> Iterator[MlflowServer]:
    """A server; its clients give up at once where it is away, not after a minute."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(database)
    found = MlflowServer(folder)
    try:
        yield found
    finally:
        found.kill()


class Dying:
    """The parts of a registration, one of which kills the server when it is called first."""

    def __init__(self, server: MlflowServer, at: str, folder: Path) -> None:
        self._server, self._at, self._folder = server, at, folder

    def _come_to(self, where: str) -> None:
        if where == self._at:
            self._server.kill()

    def log(self, client, run_id: str) -> None:
        client.set_tag(run_id, "agetf.test", "1")
        self._come_to("log")

    def log_model(self, run_id: str) -> str:
        client = mlflow.MlflowClient()
        experiment = client.get_run(run_id).info.experiment_id
        model = client.create_logged_model(experiment, "model", run_id)
        (self._folder / "weights.bin").write_bytes(b"weights")
        self._come_to("log_model")
        client.log_model_artifact(model.model_id, str(self._folder / "weights.bin"))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return model.model_uri

    def judge(self, _, champion) -> tuple[Decision, str | None]:
        self._come_to("judge")
        return Decision(True, ("better",)), None


def test_a_server_killed_in_the_middle_of_a_registration_is_gone_on_with(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    workspace = Workspace(tmp_path)
    for where in ("log_model", "judge"):
        server.start()
        parts = Dying(server, where, tmp_path)
        with pytest.raises(UnavailableError, match="gone on with"):
            register(CANDIDATE, workspace, server.uri, parts.log, parts.log_model, parts.judge)
    server.start()
    parts = Dying(server, "", tmp_path)
    done = register(CANDIDATE, workspace, server.uri, parts.log, parts.log_model, parts.judge)
    assert done.champion
    with tracking.connected(server.uri) as client:
        found = client.search_model_versions(f"name = '{MODEL}'")
        assert [str(item.version) for item in found] == ["1"]
        experiment = client.get_experiment_by_name(EXPERIMENT)
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.status == "FINISHED"
        assert run.data.metrics == {"renderings/age_mae_years": 3.5}
        (event,) = history.read_history(client, MODEL)
        assert (event.version, event.previous, event.action) == ("1", None, history.PROMOTED)
        assert history.read_pending(client, MODEL) is None

    # One that takes requests and never answers is not waited for without an end.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    server.signal(signal.SIGSTOP)
    with pytest.raises(UnavailableError, match="timeout"):
        register(CANDIDATE, workspace, server.uri, parts.log, parts.log_model, parts.judge)
    server.signal(signal.SIGCONT)
    again = register(CANDIDATE, workspace, server.uri, parts.log, parts.log_model, parts.judge)
    assert (again.version, again.created) == ("1", False)


def test_a_version_that_a_repeated_request_made_twice_is_one(database, tmp_path: Path):
    # What MLflow's client does with a request whose answer was lost: it sends it again.
    (tmp_path / "mlflow.db").write_bytes(database)
    workspace = Workspace(tmp_path)
    uri = tracking.tracking_uri_of(workspace)
    with tracking.connected(uri) as client:
        versions.ensure_model(client, MODEL, "Nothing.")
        tags = {versions.WEIGHTS_TAG: "a" * 64}
        run = client.create_run(tracking.experiment_id(client, EXPERIMENT, workspace)).info.run_id
        made = [
            versions.create_version(client, MODEL, f"file://{tmp_path}", run, tags) for _ in "12"
        ]
        other = versions.create_version(
            client, MODEL, f"file://{tmp_path}", run, {versions.WEIGHTS_TAG: "b" * 64}
        )
        assert versions.drop_repeats(client, MODEL, made[1]).version == made[0].version
        left = client.search_model_versions(f"name = '{MODEL}'")
        assert {item.version for item in left} == {made[0].version, other.version}


def test_labels_do_not_wait_for_a_server_that_is_away(server: MlflowServer, tmp_path: Path):
    sys.path.append(str(Path(__file__).parents[1] / "unit" / "stages"))
    from label_corpus import write_corpus

    workspace = Workspace(tmp_path)
    write_corpus(workspace, num_ffhq=24, num_subjects=30, num_ages=2)
    config = PipelineConfig.model_validate({"register_model": {"tracking_uri": server.uri}})
    report = relabel.run(config, workspace)
    assert read_table(workspace, LABELS).height == report.counts["images"] > 0
    assert any("not in MLflow" in message for message in report.messages)
    assert pending_path(workspace).exists()
    still_away = relabel.run(config, workspace)
    assert still_away.status == "skipped"
    assert any("not in MLflow" in message for message in still_away.messages)

    # What was kept is damaged, or somebody tidies up: it is made anew from the stage's report.
    kept = pending_path(workspace).read_bytes()
    for lose in (lambda path: path.write_bytes(kept[:30]), lambda path: path.unlink()):
        lose(pending_path(workspace))
        assert relabel.run(config, workspace).status == "skipped"
        assert json.loads(pending_path(workspace).read_bytes()) == json.loads(kept)

    server.start()
    assert relabel.run(config, workspace).status == "skipped"
    assert not pending_path(workspace).exists()
    assert relabel.run(config, workspace).status == "skipped"
    assert not pending_path(workspace).exists()  # nothing is taken for lost that was logged
    with tracking.connected(server.uri) as client:
        experiment = client.get_experiment_by_name("moe-labels")
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.data.metrics["num_images"] == report.counts["images"]
        assert "mixture/calibration.json" in {
            item.path for item in client.list_artifacts(run.info.run_id, "mixture")
        }


def _hold(path: Path, seconds: float) -> subprocess.Popen:
    """Start a process that holds the database's write lock for so long."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_database_that_is_locked_for_seconds_is_waited_for(database, tmp_path: Path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(database)
    uri = tracking.tracking_uri_of(Workspace(tmp_path))
    process = _hold(path, 2)
    with tracking.connected(uri) as client:
        versions.ensure_model(client, MODEL, "Nothing.")
    assert process.wait(30) == 0
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM registered_models").fetchall() == [(MODEL,)]


@pytest.mark.slow
def test_a_database_that_stays_locked_is_unavailable(database, tmp_path: Path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(database)
    process = _hold(path, 600)
    try:
        with (
            pytest.raises(UnavailableError, match="locked"),
            tracking.connected(tracking.tracking_uri_of(Workspace(tmp_path))) as client,
        ):
            versions.ensure_model(client, MODEL, "Nothing.")
    finally:
        process.kill()
        process.wait()
