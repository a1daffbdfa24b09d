"""Runs that are terminated in the UI: no process is left, and no half-written file."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from training_workspace import make_config, make_workspace

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.stages import distill, train

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 240  # for a machine that does other things too
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
TERMINATE = 'mutation { terminateRun(runId: "%s") { __typename } }'
STATUS = '{ runOrError(runId: "%s") { ... on Run { status } } }'
EVENTS = """
{ logsForRun(runId: "%s") {
    ... on EventConnection { events { ... on MessageEvent { message } } } } }
"""


@dataclass(frozen=True)
class Server:
    """The UI and daemon of a workspace, as `make ui` starts them."""

    port: int
    workspace: Workspace
    process: subprocess.Popen

    def ask(self, query: str, **variables) -> dict:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    def launch(self, asset: str, overrides: list[str]) -> str:
        """Materialise an asset, as its button does; return the run's id."""
        selector = {
            "repositoryLocationName": "agetf",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": [asset]}],
            "assetCheckSelection": [],
        }
        settings = {"resources": {"pipeline": {"config": {"overrides": overrides}}}}
        params = {"selector": selector, "mode": "default", "runConfigData": json.dumps(settings)}
        result = self.ask(LAUNCH, params=params)["launchRun"]
        assert result["__typename"] == "LaunchRunSuccess", result
        return result["run"]["runId"]

    def status(self, run_id: str) -> str:
        return self.ask(STATUS % run_id)["runOrError"]["status"]

    def worker_of(self, run_id: str) -> int:
        """The id of the process that works on a run."""
        events = self.ask(EVENTS % run_id)["logsForRun"]["events"]
        found = [re.search(r"Started process for run \(pid: (\d+)\)", e["message"]) for e in events]
        return next(int(match[1]) for match in found if match)

    def terminate(self, run_id: str) -> None:
        result = self.ask(TERMINATE % run_id)["terminateRun"]
        assert result["__typename"] == "TerminateRunSuccess", result


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.1)


def process_tree(pid: int) -> dict[int, str]:
    """A process and all that it started, directly or not: ids and commands."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX":
                parents[int(folder.name)] = int(fields[1])
    tree, added = set(), {pid} & set(parents)
    while added:
        tree |= added
        added = {child for child, parent in parents.items() if parent in tree} - tree
    commands = {}
    for member in tree:
        with suppress(OSError):
            commands[member] = Path(f"/proc/{member}/cmdline").read_bytes().decode(errors="replace")
    return commands


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("cancelled")
    workspace = make_workspace(folder / "workspace")
    config = make_config(checkpoint_every_s=1e-9, validate_every_images=0, num_images=1_000_000)
    distill.run(config, workspace)
    values = config.model_dump(mode="json", exclude_unset=True)
    values["workspace"] = {"root": str(workspace.root)}
    (folder / "own.yaml").write_text(yaml.safe_dump(values))
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.serve", "--home", str(folder / "home"), "--port", str(port)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "AGETF_CONFIG": str(folder / "own.yaml")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    served = Server(port, workspace, process)

    def answers() -> bool:
        assert process.poll() is None
        try:
            return bool(served.ask("{ version }"))
        except OSError:
            return False

    try:
        wait_until(answers)
        yield served
    finally:
        started = process_tree(process.pid)
        process.terminate()
        try:
            process.wait(timeout=60)
        finally:
            for pid in started:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def cancel(server: Server, run_id: str) -> None:
    """Terminate a run, and see that it and everything that it started is gone."""
    tree = process_tree(server.worker_of(run_id))
    server.terminate(run_id)
    wait_until(lambda: server.status(run_id) not in ("STARTED", "CANCELING"))
    assert server.status(run_id) == "CANCELED"
    wait_until(lambda: not set(tree) & set().union(*(process_tree(pid) for pid in tree)))


def assert_nothing_half_written(workspace: Workspace) -> None:
    from safetensors import safe_open

    assert [path for path in workspace.root.rglob(".tmp-*") if "launch" not in path.parts] == []
    for path in workspace.root.rglob("*.safetensors"):
        safe_open(path, framework="np")
    for path in workspace.root.rglob("*.json"):
        json.loads(path.read_text())


@pytest.mark.slow
def test_training_in_two_processes_is_ended_with_its_run(server):
    run_id = server.launch("age_transformer", ["train.num_processes=2"])
    folder = train.checkpoints_path(make_config(), server.workspace)
    wait_until(lambda: list(folder.glob("images-*")) or server.status(run_id) == "FAILURE")
    commands = process_tree(server.worker_of(run_id)).values()
    assert sum("agetf_pipeline.training" in command for command in commands) == 3  # and torchrun
    cancel(server, run_id)
    assert_nothing_half_written(server.workspace)
    assert list(folder.glob("images-*"))


@pytest.mark.slow
def test_a_stage_with_processes_of_its_own_is_ended_with_its_run(server):
    run_id = server.launch("guidance_networks", ["distill.num_steps=1000000"])

    def works() -> bool:
        status = server.status(run_id)
        assert status in ("QUEUED", "STARTING", "STARTED")
        if status != "STARTED":
            return False
        commands = process_tree(server.worker_of(run_id)).values()
        return sum("spawn_main" in command for command in commands) >= 3  # the run's own, and two

    wait_until(works)
    cancel(server, run_id)
    assert_nothing_half_written(server.workspace)
