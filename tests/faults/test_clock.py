"""A clock that is set back or forward by a day: nothing is lost, reordered, or taken for dead."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from small_registry import MODEL, make_registry
from tiny_shards import write_shard

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.work import StageReport, run_once
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data import shards
from agetf_pipeline.data.shards import scan_shards
from agetf_pipeline.registry import history, tracking
from agetf_pipeline.training.checkpoints import _checkpoints
from jobs import stale_runs

REPOSITORY = Path(__file__).resolve().parents[2]
DAY_S = 86400.0
CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.datetime.now"}
RECORDS = {
    "agetf_pipeline/registry/history.py",  # when a champion changed; ordered by a counter
    "agetf_pipeline/registry/tracking.py",  # when a figure was measured; ordered by a counter
    "agetf_pipeline/enhance/outputs.py",  # when a picture was written
    "agetf_pipeline/data/forgotten.py",  # when somebody was forgotten
    "agetf_pipeline/upkeep/doctor_workspace.py",  # whether the file server's clock is right
    "jobs/retention.py",  # which runs of Dagster are older than a month
}
"""Files that read the clock to write down when something was; none measures a duration by it."""


def _reads_the_clock(path: Path) -> bool:
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return any(ast.unparse(call.func) in CLOCKS for call in calls)


def test_durations_are_never_measured_by_the_clock():
    roots = ("agetf_pipeline", "assets", "jobs", "resources")
    found = {
        path.relative_to(REPOSITORY).as_posix()
        for root in roots
        for path in (REPOSITORY / root).rglob("*.py")
        if _reads_the_clock(path)
    }
    assert found <= RECORDS, "measure durations by time.monotonic()"


def test_a_stage_s_duration_survives_a_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def work() -> StageReport:
        now_s = time.time()
        monkeypatch.setattr(time, "time", lambda: now_s - DAY_S)
        return StageReport("quick")

    assert 0 <= run_once(Workspace(tmp_path), "quick", {}, "1", {}, work).duration_s < DAY_S / 2


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> bytes:
    workspace = make_registry(tmp_path_factory.mktemp("tables"), 3)
    return (workspace.root / "mlflow.db").read_bytes()


@pytest.fixture
def workspace(tmp_path: Path, database: bytes) -> Workspace:
    (tmp_path / "mlflow.db").write_bytes(database)
    return Workspace(tmp_path)


@pytest.mark.parametrize("jump_s", [-DAY_S, 0.0, DAY_S])
def test_the_figure_measured_last_is_the_one_that_counts(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, jump_s: float
):
    with tracking.connected(tracking.tracking_uri_of(workspace)) as client:
        experiment = tracking.experiment_id(client, "clock", workspace)
        run_id = tracking.resume_or_start_run(client, experiment, "a", "identity", {})
        tracking.log_metrics(client, run_id, {"mae_years": 9.0})
        now_s = time.time()
        with monkeypatch.context() as patch:
            patch.setattr(tracking.time, "time", lambda: now_s + jump_s)
            tracking.log_metrics(client, run_id, {"mae_years": 3.0})
        assert client.get_run(run_id).data.metrics["mae_years"] == 3.0


def test_champions_stand_in_the_order_they_came_in(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    times = iter(["2026-06-03T00:00:00", "2026-06-01T00:00:00", "2026-06-02T00:00:00"])
    monkeypatch.setattr(history, "now", lambda: next(times))
    uri = tracking.tracking_uri_of(workspace)
    with history.registry_lock(workspace, uri), tracking.connected(uri) as client:
        before = None
        for number in "123":
            history.promote(client, MODEL, number, history.GATES, before)
            before = number
        assert history.line_of_champions(history.read_history(client, MODEL)) == ["1", "2", "3"]
        assert history.read_history(client, MODEL)[-1].previous == "2"


@pytest.mark.parametrize("when_s", [0, 1, 4102444800], ids=["1970", "1970+", "2100"])
def test_shards_of_any_time_are_complete_and_a_change_to_an_earlier_time_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when_s: int
):
    workspace = Workspace(tmp_path)
    folder = write_shard(workspace, "s", 1)
    for path in folder.iterdir():
        os.utime(path, (when_s, when_s))
    (first,) = scan_shards(PipelineConfig(), workspace)
    assert first.state == "complete"
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_examine", None)  # it is not asked again
        assert scan_shards(PipelineConfig(), workspace) == [first]
    os.utime(folder / "0.png", (when_s + DAY_S, when_s + DAY_S))
    (later,) = scan_shards(PipelineConfig(), workspace)
    os.utime(folder / "0.png", (when_s, when_s))
    (back,) = scan_shards(PipelineConfig(), workspace)
    assert first.fingerprint == back.fingerprint != later.fingerprint


def test_checkpoints_go_by_the_images_they_have_seen(tmp_path: Path):
    for number, when_s in ((100, 4102444800), (900, 1), (2000, 1000)):
        folder = tmp_path / f"images-{number:09d}"
        folder.mkdir()
        os.utime(folder, (when_s, when_s))
    names = [path.name for path in _checkpoints(tmp_path)]
    assert names == ["images-000000100", "images-000000900", "images-000002000"]


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
def test_a_run_that_goes_on_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch, jump_s: float):
    from dagster._core.events import EngineEventData

    @dg.job
    def nothing() -> None:
        pass

    with (
        dg.DagsterInstance.ephemeral() as instance,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker,
    ):
        run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTING)
        instance.report_engine_event("begun", run, EngineEventData.in_process(worker.pid))
        assert stale_runs.reap(instance) == set()
        began_s = stale_runs._started_s
        # What the kernel says of a start moves with the clock.
        monkeypatch.setattr(stale_runs, "_started_s", lambda ticks: began_s(ticks) + jump_s)
        assert stale_runs.reap(instance) == set()
        worker.kill()
        worker.wait()
        assert stale_runs.reap(instance) == {run.run_id}
