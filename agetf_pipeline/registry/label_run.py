"""The mixture's measurement as a run in MLflow: figures, plots, tables, calibration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry import tracking

EXPERIMENT = "moe-labels"


def log_label_run(
    workspace: Workspace,
    tracking_uri: str | None,
    identity: str,
    synthetic: bool,
    settings: dict[str, Any],
    figures: Mapping[str, float | None],
    files: list[Path],
) -> str:
    """Log one relabelling; the same one logged twice is one run.

    Args:
        workspace: The workspace.
        tracking_uri: Server; None for the workspace's SQLite.
        identity: Fingerprint of the relabelling.
        synthetic: Whether its faces were drawn.
        settings: Logged as parameters.
        figures: Logged as metrics; those that could not be computed are left out.
        files: Logged as artifacts.

    Returns:
        The run's id.
    """
    with tracking.connected(tracking.tracking_uri_of(workspace, tracking_uri)) as client:
        experiment = tracking.experiment_id(client, EXPERIMENT, workspace)
        run_id = tracking.resume_or_start_run(
            client, experiment, f"labels-{identity[:8]}", identity,
            {"agetf.synthetic": str(synthetic).lower()},
        )  # fmt: skip
        tracking.log_params(client, run_id, tracking.flatten(settings))
        known = {name: value for name, value in figures.items() if value is not None}
        tracking.log_metrics(client, run_id, known)
        for path in files:
            client.log_artifact(run_id, str(path), "mixture")
        client.set_terminated(run_id)
    return run_id
