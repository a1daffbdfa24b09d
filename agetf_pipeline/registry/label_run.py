"""The mixture's measurement as a run in MLflow: figures, plots, tables, calibration.

Labels do not wait for a tracking server: what could not be logged is written down, and logged by
whoever reaches the server next, the stage relabel or register. That nothing is owed any more is
written down, too: a record that was removed or damaged is told from one that was logged.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agetf_pipeline.core.errors import AgetfError, DamagedFileError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry import tracking

EXPERIMENT = "moe-labels"
_NOT_LOGGED = "their run is not in MLflow"


@dataclass(frozen=True)
class LabelRun:
    """One relabelling; the same one logged twice is one run.

    Attributes:
        identity: Fingerprint of the relabelling.
        synthetic: Whether its faces were drawn.
        settings: Logged as parameters.
        figures: Logged as metrics; those that could not be computed are left out.
        files: Logged as artifacts, by their paths relative to the workspace.
    """

    identity: str
    synthetic: bool
    settings: dict[str, Any]
    figures: dict[str, float | None]
    files: list[str]


def log_or_keep(workspace: Workspace, tracking_uri: str | None, run: LabelRun) -> str | None:
    """Log a relabelling, or keep it for later where MLflow does not take it now.

    Args:
        workspace: The workspace.
        tracking_uri: Server; None for the workspace's SQLite.
        run: What is logged.

    Returns:
        None where it was logged, else a sentence that says why not.
    """
    write_json(pending_path(workspace), asdict(run))
    _logged_path(workspace).unlink(missing_ok=True)
    return catch_up(workspace, tracking_uri)


def catch_up(workspace: Workspace, tracking_uri: str | None) -> str | None:
    """Log what was kept for later, if anything was; return why that failed, None where it did not.

    Whatever it is that fails: the record stays, and whoever asks goes on with what it has.
    """
    path = pending_path(workspace)
    try:
        run = _kept(workspace)
        if run is None:
            return None
        _log(workspace, tracking_uri, run)
        write_json(_logged_path(workspace), {"identity": run.identity})
    except DamagedFileError as error:
        return f"the labels are there, but {_NOT_LOGGED}: {error}"
    except Exception as error:
        why = str(error) if isinstance(error, AgetfError) else f"{type(error).__name__}: {error}."
        return (
            f"the labels are there, but {_NOT_LOGGED}: {why} It is logged when "
            "relabel or register next runs."
        )
    path.unlink(missing_ok=True)
    return None


def is_lost(workspace: Workspace, messages: list[str]) -> bool:
    """Whether a relabelling is not in MLflow, and what was kept of it is gone or damaged.

    Args:
        workspace: The workspace.
        messages: Of the relabelling's report.
    """
    try:
        if _kept(workspace) is not None:
            return False
    except DamagedFileError:
        return True
    put_off = any(_NOT_LOGGED in message for message in messages)
    return put_off and not _logged_path(workspace).exists()


def pending_path(workspace: Workspace) -> Path:
    """Return the file that keeps a relabelling which is not in MLflow yet."""
    return workspace.state / "label_run.json"


def _logged_path(workspace: Workspace) -> Path:
    return workspace.state / "label_run_logged.json"


def _kept(workspace: Workspace) -> LabelRun | None:
    """Return what was kept for later; None where nothing was.

    Raises:
        DamagedFileError: It cannot be read.
    """
    path = pending_path(workspace)
    try:
        return LabelRun(**read_json(path))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DamagedFileError(
            f"Expected the relabelling to log in {workspace.relative(path)}; found no such record "
            "there. Run relabel, which writes it anew."
        ) from error


def _log(workspace: Workspace, tracking_uri: str | None, run: LabelRun) -> str:
    with tracking.connected(tracking.tracking_uri_of(workspace, tracking_uri)) as client:
        experiment = tracking.experiment_id(client, EXPERIMENT, workspace)
        run_id = tracking.resume_or_start_run(
            client, experiment, f"labels-{run.identity[:8]}", run.identity,
            {"agetf.synthetic": str(run.synthetic).lower()},
        )  # fmt: skip
        tracking.log_params(client, run_id, tracking.flatten(run.settings))
        known = {name: value for name, value in run.figures.items() if value is not None}
        tracking.log_metrics(client, run_id, known)
        for name in run.files:
            path = workspace.resolve(name)
            if path.is_file():
                client.log_artifact(run_id, str(path), "mixture")
        client.set_terminated(run_id)
    return run_id
