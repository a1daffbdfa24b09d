"""The connection to MLflow: one place sets it up, and nothing of it leaves the machine unasked."""

import logging
import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agetf_pipeline.core.errors import StageError, UnavailableError
from agetf_pipeline.core.secrets import redact
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry.database_errors import database_error
from agetf_pipeline.registry.database_server import is_away, is_database_server, reach, refuses

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_ODD = re.compile(r"[^\w./ :-]")
"""What MLflow refuses in the name of a metric."""

_TIMES_MEASURED_TAG = "agetf.times_measured"
_ENVIRONMENT = {
    # No usage reports, no unpickling of what a registry hands out, and no git executable needed.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that is started anew is back within a minute (2 + 4 + 8 + 16 + 32 s between tries);
    # one that takes requests and never answers holds a stage up for six at most.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
}


def tracking_uri_of(workspace: Workspace, configured: str | None = None) -> str:
    """Return the URI of the tracking server: the configured one, else the workspace's SQLite."""
    if configured is not None:
        return configured
    return f"sqlite:///{(workspace.root / 'mlflow.db').resolve().as_posix()}"


def import_mlflow() -> Any:
    """Import mlflow with telemetry off and pickles refused; several seconds the first time."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Set whatever the environment says: these two are not the user's to loosen by accident.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    import mlflow

    for name in ("mlflow", "alembic", "mlflow.utils.git_utils", "git"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It logs a traceback of what it raises, too.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return mlflow


@contextmanager
def connected(tracking_uri: str) -> Iterator["MlflowClient"]:
    """Point mlflow at a tracking server while the block runs; give a client of it.

    The former URIs are put back, so that other users of mlflow in the process keep theirs.

    Raises:
        StageError: MLflow reports an error that the block does not handle.
        UnavailableError: Its server, or its database, does not answer now.
        StorageError: The disk of its SQLite file is full, or may not be written.
        DataError: Its SQLite file is damaged.
        ConfigError: The driver of its database is not installed.
    """
    mlflow = import_mlflow()
    from requests.exceptions import RequestException
    from sqlalchemy.exc import DBAPIError

    former = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reach(tracking_uri)
            mlflow.set_tracking_uri(tracking_uri)
            mlflow.set_registry_uri(tracking_uri)
            yield mlflow.MlflowClient(tracking_uri, tracking_uri)
    except (mlflow.exceptions.MlflowException, DBAPIError, RequestException) as error:
        said = database_error(error, tracking_uri)
        if said is not None:
            raise said from error
        passes = _passes(error, tracking_uri)
        if isinstance(error, DBAPIError) and not passes and not _refuses(error, tracking_uri):
            raise
        kind = UnavailableError if passes else StageError
        raise kind(
            f"Expected the registry {redact(tracking_uri)} to answer; found: {_said_by(error)}. "
            "See that it is there and writable, and run this again: what was begun is gone on with."
        ) from error
    finally:
        mlflow.set_tracking_uri(former[0])
        mlflow.set_registry_uri(former[1])


def _passes(error: Any, tracking_uri: str) -> bool:
    """Whether an error is a server's that is away or overloaded, or a locked database's."""
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE, ErrorCode
    from requests.exceptions import HTTPError, RequestException
    from sqlalchemy.exc import DBAPIError

    if isinstance(error, DBAPIError):
        # Of a file, an operational error says anything, such as that it has no such table.
        server = is_database_server(tracking_uri)
        return is_away(error) if server else "database is locked" in str(error)
    if isinstance(error, RequestException):
        # Artifacts are sent past MLflow's own handling of errors.
        code = getattr(error.response, "status_code", 503)
        return not isinstance(error, HTTPError) or code >= 500 or code == 429
    if error.error_code == ErrorCode.Name(TEMPORARILY_UNAVAILABLE):
        return True
    # Over HTTP the client reports a connection that failed as an internal error, too.
    status = error.get_http_status_code()
    return tracking_uri.startswith(("http://", "https://")) and (status >= 500 or status == 429)


def _refuses(error: BaseException, tracking_uri: str) -> bool:
    return is_database_server(tracking_uri) and refuses(error)


def _said_by(error: Exception) -> str:
    """Return an error's text; of SQLAlchemy's, the driver's alone, without the statement."""
    return " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".?")


def experiment_id(client: "MlflowClient", name: str, workspace: Workspace) -> str:
    """Return the experiment's id, made if absent.

    Over SQLite the artifacts lie under the workspace's `mlruns`; a server keeps them where it was
    told to.
    """
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    local = str(client.tracking_uri).startswith("sqlite:")
    location = (workspace.root / "mlruns").resolve().as_uri() if local else None
    return client.create_experiment(name, artifact_location=location)


def resume_or_start_run(
    client: "MlflowClient", experiment: str, name: str, identity: str, tags: dict[str, str]
) -> str:
    """Return the id of the run with this identity, made if absent: a killed run is gone on with."""
    runs = client.search_runs([experiment], f"tags.`agetf.identity` = '{identity}'", max_results=1)
    if runs:
        return runs[0].info.run_id
    tags = {"agetf.identity": identity, "mlflow.runName": name, **tags}
    return client.create_run(experiment, run_name=name, tags=tags).info.run_id


def log_metrics(client: "MlflowClient", run_id: str, metrics: dict[str, float]) -> None:
    """Log metrics in batches (over a server, a call each takes long); `=` in a name becomes `:`.

    The last value is the one that counts. MLflow goes by the step before it goes by the time, and a
    clock may have been set back: so the step counts how often the run was measured.
    """
    from mlflow.entities import Metric

    times = int(client.get_run(run_id).data.tags.get(_TIMES_MEASURED_TAG, "0")) + 1
    client.set_tag(run_id, _TIMES_MEASURED_TAG, str(times))
    now_ms = int(time.time() * 1000)
    items = [
        Metric(_ODD.sub("_", name.replace("=", ":")), value, now_ms, times)
        for name, value in sorted(metrics.items())
    ]
    for start in range(0, len(items), 500):
        client.log_batch(run_id, metrics=items[start : start + 500])


def log_params(client: "MlflowClient", run_id: str, params: dict[str, str]) -> None:
    """Log parameters in batches; those that the run has already are left as they are."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    items = [Param(name, value) for name, value in sorted(params.items()) if name not in known]
    for start in range(0, len(items), 100):
        client.log_batch(run_id, params=items[start : start + 100])


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as `section.key` to text, as MLflow shows parameters."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = str(value)[:6000]
    return flat


def find_logged_model(client: "MlflowClient", experiment: str, run_id: str) -> str | None:
    """Return the URI of the model that a run has logged whole already; None where it has none."""
    from mlflow.entities import LoggedModelStatus

    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    ready = [item for item in found if item.status == LoggedModelStatus.READY]
    return ready[0].model_uri if ready else None
