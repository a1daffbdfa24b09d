"""A registry in PostgreSQL that is away: said soon, and kept for later by whoever can wait."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agetf_pipeline.core.errors import ConfigError, StageError, UnavailableError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry import database_server, label_run, tracking

RUN = label_run.LabelRun("identity", True, {"relabel": {}}, {"num_images": 3.0}, [])


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a database at whose port nobody listens."""
    monkeypatch.setattr(database_server, "WAITS_S", (0.0,))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        yield f"postgresql+psycopg2://somebody@127.0.0.1:{taken.getsockname()[1]}/registry"


def test_a_database_that_is_away_is_unavailable(away: str, monkeypatch: pytest.MonkeyPatch):
    # MLflow's own attempts would take 107 s: it is not asked.
    import mlflow

    monkeypatch.setattr(mlflow, "MlflowClient", lambda *_: pytest.fail("MLflow was asked"))
    with pytest.raises(UnavailableError, match="Connection refused"), tracking.connected(away):
        pass


def _dbapi(text: str) -> Exception:
    from sqlalchemy.exc import OperationalError

    return OperationalError("select 1", {}, Exception(text))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("server closed the connection unexpectedly", UnavailableError),
        ('FATAL:  password authentication failed for user "u"', StageError),
        ('FATAL:  database "registry" does not exist', StageError),
    ],
)
def test_one_that_goes_away_passes_and_one_that_refuses_does_not(
    text: str, kind: type, monkeypatch: pytest.MonkeyPatch
):
    import mlflow

    monkeypatch.setattr(tracking, "reach", lambda _: None)  # it answered when it was asked
    monkeypatch.setattr(mlflow, "MlflowClient", lambda *_: None)
    uri = "postgresql+psycopg2://u:hidden-word@127.0.0.1:1/registry"
    with pytest.raises(StageError) as caught, tracking.connected(uri):
        raise _dbapi(text)
    assert caught.type is kind
    assert "hidden-word" not in str(caught.value)
    assert "select 1" not in str(caught.value)


def test_an_operational_error_of_a_file_is_nobody_s_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import mlflow
    from sqlalchemy.exc import OperationalError

    monkeypatch.setattr(mlflow, "MlflowClient", lambda *_: None)  # it would make its tables
    with (
        pytest.raises(OperationalError),
        tracking.connected(f"sqlite:///{tmp_path / 'mlflow.db'}"),
    ):
        raise _dbapi("no such table: runs")


@pytest.mark.parametrize("scheme", ["postgresql+pg8000", "mysql+nodriver"])
def test_a_driver_that_is_not_installed_is_named(scheme: str):
    with (
        pytest.raises(ConfigError, match=f"{re.escape(scheme)}.*{scheme.partition('+')[2]}"),
        tracking.connected(f"{scheme}://u@127.0.0.1:1/registry"),
    ):
        pass


def test_a_relabelling_is_kept_whatever_keeps_it_from_mlflow(away: str, tmp_path: Path):
    workspace = Workspace(tmp_path)
    for uri in (away, "postgresql+pg8000://u@127.0.0.1:1/registry"):
        said = label_run.log_or_keep(workspace, uri, RUN)
        assert said is not None
        assert "not in MLflow" in said
        assert label_run.pending_path(workspace).exists()


def test_an_error_that_nobody_foresaw_keeps_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import mlflow

    workspace = Workspace(tmp_path)

    def fail(*_):
        raise KeyError("a bug")

    monkeypatch.setattr(tracking, "resume_or_start_run", fail)
    monkeypatch.setattr(tracking, "experiment_id", lambda *_: "0")
    monkeypatch.setattr(mlflow, "MlflowClient", lambda *_: None)
    said = label_run.log_or_keep(workspace, f"sqlite:///{tmp_path / 'mlflow.db'}", RUN)
    assert "KeyError: 'a bug'" in str(said)
    assert label_run.pending_path(workspace).exists()


def test_a_record_that_is_damaged_or_gone_is_told_from_one_that_was_logged(
    away: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    workspace = Workspace(tmp_path)
    said = label_run.log_or_keep(workspace, away, RUN)
    messages = [str(said)]
    assert not label_run.is_lost(workspace, messages)
    path = label_run.pending_path(workspace)
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    assert label_run.is_lost(workspace, messages)
    assert "label_run.json" in str(label_run.catch_up(workspace, away))
    path.unlink()
    assert label_run.is_lost(workspace, messages)
    assert not label_run.is_lost(workspace, ["another message"])

    path.write_bytes(whole)
    monkeypatch.setattr(label_run, "_log", lambda *_: "run")  # stands for a server that is back
    assert label_run.catch_up(workspace, away) is None
    assert not path.exists()
    assert not label_run.is_lost(workspace, messages)
