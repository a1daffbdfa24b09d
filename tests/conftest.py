"""Shared by all tests: one thread per process, no telemetry, no network by configuration."""

import os
import signal
import sys
from pathlib import Path

import pytest
from main_job import GraphRun, launch, write_config

REPOSITORY = Path(__file__).resolve().parent.parent
# The application's packages are not installed; the repository root is where they are loaded from.
sys.path.insert(0, str(REPOSITORY))

# A shell may start what runs in the background with signals ignored, and all children inherit that:
# tests that end processes by a signal would wait for ever.
for _number, _action in (
    (signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL),
):  # fmt: skip
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _action)

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def graph_run(tmp_path_factory) -> GraphRun:
    """The main job, run once on configs/test.yaml."""
    folder = tmp_path_factory.mktemp("graph")
    config = write_config(folder, folder / "workspace")
    done = launch(config, folder / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    from agetf_pipeline.core.workspace import Workspace

    return GraphRun(config, Workspace(folder / "workspace"), folder / "home", done.stdout)


@pytest.fixture(autouse=True)
def _unlearned_devices():
    """What a test taught this process of memory and devices is not the next one's."""
    yield
    from agetf_pipeline.core import batches, devices

    batches.forget_sizes()
    devices.forget_lost_device()


@pytest.fixture
def two_threads():
    """PyTorch computes with two threads, whatever the machine has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
