"""The registry, the Dagster instance, and the port of its UI. Nobody is waited for long."""

import http.client
import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from agetf_pipeline.core.secrets import redact
from agetf_pipeline.core.yaml_files import read_yaml
from agetf_pipeline.upkeep.doctor import Item, Patient, ill
from agetf_pipeline.upkeep.verify_sqlite import copied, integrity_of

TIMEOUT_S = 3.0
_HOST = "127.0.0.1"
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_THERE = (200, 401, 403)
"""Behind a proxy, the question without credentials is refused: something that asks is there."""
_RUNNING = ("STARTED", "STARTING", "QUEUED", "CANCELING")


def registry_check(patient: Patient) -> Iterator[Item]:
    """Whether MLflow's database is whole, or its server answers."""
    if patient.config is None or patient.workspace is None:
        return
    uri = patient.config.register_model.tracking_uri
    if uri is None or uri.startswith("sqlite"):
        path = (
            patient.workspace.root / "mlflow.db"
            if uri is None
            else Path(unquote(urlsplit(uri).path).removeprefix("/"))
        )
        if not path.is_file():
            yield Item("registry", "none yet: the stage register makes it")
            return
        damage = integrity_of(path, quick=True)
        if damage is None:
            yield Item("registry", f"{path} is whole")
        else:
            yield ill(
                "error", "services/registry", str(path), "a whole SQLite database",
                damage.splitlines()[0], "Put a copy back, or `sqlite3 FILE .recover`; moved away, "
                "a new one is begun, without the versions and the champion.",
            )  # fmt: skip
        return
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        folder = Path(unquote(urlsplit(uri).path))
        state = "a folder of files" if folder.is_dir() else "none yet: the stage register makes it"
        yield Item("registry", f"{folder}: {state}")
        return
    problem = _answers(uri)
    if problem is None:
        yield Item("registry", f"{redact(uri)} answers")
    else:
        yield ill(
            "error", "services/registry", redact(uri), f"an answer within {TIMEOUT_S:g} s",
            problem, "Start the server, or correct register_model.tracking_uri and the network; "
            "credentials come from MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN.",
        )  # fmt: skip


def dagster_check(patient: Patient) -> Iterator[Item]:
    """Whether the Dagster instance has settings that read, and databases that are whole."""
    home = dagster_home(patient)
    if home is None:
        yield Item("Dagster", "no instance yet: `make demo`, `make run` or `make ui` makes it")
        return
    if not home.is_dir():
        yield ill(
            "error", "services/dagster", str(home), "the folder of a Dagster instance", "nothing",
            "Correct DAGSTER_HOME or --dagster-home.",
        )  # fmt: skip
        return
    settings: Any = {}
    try:
        settings = read_yaml(home / "dagster.yaml") or {}
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        yield ill(
            "error", "services/dagster_yaml", str(home / "dagster.yaml"), "YAML", str(error),
            "Delete it: `make ui` copies configs/dagster.yaml there again.",
        )  # fmt: skip
    yield from _postgres(settings if isinstance(settings, Mapping) else {})
    damaged = 0
    databases = sorted(home.rglob("*.db"))
    for path in databases:
        damage = integrity_of(path, quick=True)
        if damage is not None:
            damaged += 1
            yield ill(
                "error", "services/dagster_sqlite", str(path), "a whole SQLite database",
                damage.splitlines()[0], f"Move {home} away and start again: tables, models and "
                "the registry stay, Dagster's history of runs is lost.",
            )  # fmt: skip
    yield from _unfinished(home)
    if not damaged:
        yield Item("Dagster", f"{home}: {len(databases)} databases are whole")


def port_check(patient: Patient) -> Iterator[Item]:
    """Whether the port of the UI is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, patient.port))
        except OSError:
            yield ill(
                "note", "services/port", f"port {patient.port}", "a free port for `make ui`",
                "something listens there, perhaps the UI itself",
                f"Open http://{_HOST}:{patient.port}, or choose another port: "
                f"make ui PORT={patient.port + 1}.",
            )  # fmt: skip
            return
    yield Item("port of the UI", f"{patient.port} is free")


def dagster_home(patient: Patient) -> Path | None:
    """Return the instance's folder: the given one, DAGSTER_HOME, or that of `make ui`."""
    from agetf_pipeline.upkeep.doctor import REPOSITORY

    if patient.dagster_home is not None:
        return patient.dagster_home
    named = os.environ.get("DAGSTER_HOME")
    if named:
        return Path(named)
    usual = REPOSITORY / ".dagster_home" / patient.config_path.stem
    return usual if usual.is_dir() else None


def _answers(uri: str) -> str | None:
    """Return why a server does not answer, None where it does."""
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    host = parts.hostname
    if host is None:
        return f"{redact(uri)} is no address of a server"
    try:
        port = parts.port or _PORTS.get(scheme, 0)
        if scheme not in ("http", "https"):
            socket.create_connection((host, port), TIMEOUT_S).close()
            return None
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        connection = kind(host, port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", f"{parts.path.rstrip('/')}/health")
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return redact(f"{type(error).__name__}: {error}")
    return None if status in _THERE else f"HTTP {status} for /health"


def _postgres(settings: Mapping[str, Any]) -> Iterator[Item]:
    """Whether the PostgreSQL of the instance can be reached."""
    storage = settings.get("storage")
    postgres = storage.get("postgres") if isinstance(storage, Mapping) else None
    database = postgres.get("postgres_db") if isinstance(postgres, Mapping) else None
    if not isinstance(database, Mapping):
        return
    host = _setting(database.get("hostname"))
    port = _setting(database.get("port", 5432))
    try:
        socket.create_connection((str(host), int(port or 5432)), TIMEOUT_S).close()
        yield Item("PostgreSQL", f"{host}:{port} can be reached")
    except (OSError, ValueError) as error:
        yield ill(
            "error", "services/postgres", f"{host}:{port}", "a connection within "
            f"{TIMEOUT_S:g} s", str(error), "Start the database, or correct dagster.yaml and the "
            "variables it names.",
        )  # fmt: skip


def _setting(value: Any) -> Any:
    """Return a setting of dagster.yaml, from the environment where it says `{env: NAME}`."""
    if isinstance(value, Mapping) and "env" in value:
        return os.environ.get(str(value["env"]), "")
    return value


def _unfinished(home: Path) -> Iterator[Item]:
    """Runs that say they run, though the launcher of a terminal holds no lock any more."""
    database = home / "history" / "runs.db"
    if not database.is_file():
        return
    try:
        # The newest runs stand in the journal alone.
        with copied(database) as copy, closing(sqlite3.connect(copy)) as connection:
            marks = ",".join("?" * len(_RUNNING))
            (count,) = connection.execute(
                f"SELECT count(*) FROM runs WHERE status IN ({marks})", _RUNNING
            ).fetchone()
    except (OSError, sqlite3.Error):
        return  # damaged, and said so; or of another version
    if count:
        yield ill(
            "note", "services/runs", str(home), "no unfinished runs while nothing runs",
            f"{count} that are queued or said to run", "If nothing runs: `make ui` or `make run` "
            "marks those whose processes are gone as failed, and what they finished is kept.",
        )  # fmt: skip


CHECKS = (registry_check, dagster_check, port_check)
