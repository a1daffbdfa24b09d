"""Running the main job in tests, as `make demo` runs it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from agetf_pipeline.core.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class GraphRun:
    """A finished run of the main job: its workspace, its Dagster home, and what it printed."""

    config: Path
    workspace: Workspace
    home: Path
    printed: str


def write_config(folder: Path, root: Path) -> Path:
    """Write a config that runs configs/test.yaml in another workspace."""
    path = folder / "config" / "test.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"extends: {REPOSITORY / 'configs' / 'test.yaml'}\nworkspace: {{root: {root}}}\n"
    )
    return path


def launch_command(config: Path, home: Path) -> list[str]:
    """Return the command that `make demo` runs, for another config and Dagster home."""
    return [sys.executable, "-m", "jobs.launch", "--config", str(config), "--home", str(home)]


def launch(config: Path, home: Path) -> subprocess.CompletedProcess:
    """Run the main job to its end."""
    return subprocess.run(
        launch_command(config, home),
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
