"""A registry with versions that hold nothing, and processes that change its champion."""

from collections.abc import Sequence
from pathlib import Path

import mlflow  # noqa: F401  loaded once, by the server that forks the children

from agetf_pipeline.cli import main
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry.history import registry_lock
from agetf_pipeline.registry.tracking import connected, tracking_uri_of
from agetf_pipeline.registry.versions import create_version, ensure_model

MODEL = "age-transformer"


def make_registry(root: Path, num_versions: int) -> Workspace:
    """Make a workspace with a registry of versions 1, 2, ... and a config.yaml beside it."""
    workspace = Workspace(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.yaml").write_text(f"workspace:\n  root: {root.as_posix()}\n")
    uri = tracking_uri_of(workspace)
    with registry_lock(workspace, uri), connected(uri) as client:
        ensure_model(client, MODEL, "Nothing.")
        for number in range(1, num_versions + 1):
            tags = {"agetf.weights_sha256": str(number), "agetf.run_name": f"run-{number}"}
            create_version(client, MODEL, f"file://{root}/absent", "", tags)
    return workspace


def agetf(workspace: Workspace, *arguments: str) -> int:
    """Run `agetf registry ...` on the workspace; return the exit code."""
    config = str(workspace.root / "config.yaml")
    return main(["registry", *arguments, "--config", config, "--quiet"])


def promote_in_turn(root: Path, numbers: Sequence[str], barrier) -> None:
    """Promote one version after the other, each together with another process."""
    for number in numbers:
        barrier.wait(60)
        assert agetf(Workspace(root), "promote", number, "--reason", f"round of {number}") == 0
