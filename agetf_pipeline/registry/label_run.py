"""The mixture's measurement as a run in MLflow: figures, plots, tables, calibration.

Labels do not wait for a tracking server: what could not be logged is written down, and logged by
whoever reaches the server next, the stage relabel or register.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agetf_pipeline.core.errors import AgetfError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry import tracking

EXPERIMENT = "moe-labels"


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
    return catch_up(workspace, tracking_uri)


def catch_up(workspace: Workspace, tracking_uri: str | None) -> str | None:
    """Log what was kept for later, if anything was; return why that failed, None where it did not.

    A record that cannot be read is dropped: the stage relabel writes another.
    """
    path = pending_path(workspace)
    try:
        run = LabelRun(**read_json(path))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AgetfError):
        path.unlink(missing_ok=True)
        return None
    try:
        _log(workspace, tracking_uri, run)
    except AgetfError as error:
        return (
            f"the labels are there, but their run is not in MLflow: {error} It is logged when "
            "relabel or register next runs."
        )
    path.unlink(missing_ok=True)
    return None


def pending_path(workspace: Workspace) -> Path:
    """Return the file that keeps a relabelling which is not in MLflow yet."""
    return workspace.state / "label_run.json"


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
