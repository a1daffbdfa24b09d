"""Runs whose processes are dead are ended; the others are left alone."""

import os
import subprocess
import sys
import threading
import time

import dagster as dg
import pytest

from jobs import launch, stale_runs
from jobs.overlap import overlap

GRPC = ".dagster/grpc_info"


@dg.job
def nothing() -> None:
    pass


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def other():
    """A process, which only its test ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def begun_run(instance, pid: int | None, status=dg.DagsterRunStatus.STARTED, **tags):
    """A run that said that a process works on it."""
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTING, tags=tags)
    if pid is not None:
        from dagster._core.events import EngineEventData

        instance.report_engine_event("Started process", run, EngineEventData.in_process(pid))
    if status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceling(run)
    elif status == dg.DagsterRunStatus.STARTED:
        from dagster._core.events import DagsterEvent, DagsterEventType

        event = DagsterEvent(DagsterEventType.RUN_START.value, "nothing", message="started")
        instance.report_dagster_event(event, run.run_id)
    return run.run_id


def status_of(instance, run_id: str) -> dg.DagsterRunStatus:
    return instance.get_run_by_id(run_id).status


def test_a_run_is_left_alone_while_its_process_lives_and_ended_when_it_is_dead(instance, other):
    run_id = begun_run(instance, other.pid)
    assert stale_runs.reap(instance) == set()
    other.kill()
    other.wait()
    assert stale_runs.reap(instance) == {run_id}
    assert status_of(instance, run_id) == dg.DagsterRunStatus.FAILURE
    assert stale_runs.reap(instance) == set()


def test_a_zombie_works_on_nothing(instance, other):
    run_id = begun_run(instance, other.pid)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert stale_runs.reap(instance) == {run_id}


def test_another_process_with_the_same_id_is_not_taken_for_it(instance, other, monkeypatch):
    run_id = begun_run(instance, other.pid)
    began_s = stale_runs._started_s
    monkeypatch.setattr(stale_runs, "_started_s", lambda ticks: began_s(ticks) + 60)
    assert stale_runs.reap(instance) == {run_id}


def test_a_cancelled_run_of_a_dead_process_is_cancelled(instance, other):
    run_id = begun_run(instance, other.pid, dg.DagsterRunStatus.CANCELING)
    other.kill()
    other.wait()
    stale_runs.reap(instance)
    assert status_of(instance, run_id) == dg.DagsterRunStatus.CANCELED


def test_what_cannot_be_judged_from_here_is_left_alone(instance, other):
    other.kill()
    other.wait()
    elsewhere = begun_run(instance, other.pid, **{GRPC: '{"host": "code", "port": 4000}'})
    starting = begun_run(instance, None, dg.DagsterRunStatus.STARTING)
    assert stale_runs.reap(instance) == set()
    assert stale_runs.end_runs_of_new_code_server(instance) == {elsewhere}
    assert status_of(instance, starting) == dg.DagsterRunStatus.STARTING


def test_a_run_that_dies_meanwhile_is_ended_at_the_second_look(instance, other, monkeypatch):
    monkeypatch.setattr(stale_runs, "_PERIOD_S", 0.01)
    run_id, stop = begun_run(instance, other.pid), threading.Event()
    thread = stale_runs.watch(instance, stop)
    assert status_of(instance, run_id) == dg.DagsterRunStatus.STARTED
    other.kill()
    other.wait()
    deadline_s = time.monotonic() + 60
    while status_of(instance, run_id) != dg.DagsterRunStatus.FAILURE:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    stop.set()
    thread.join()


def test_slots_of_the_pool_are_freed(instance, other):
    storage = instance.event_log_storage
    storage.set_concurrency_slots("gpu", 1)
    run_id = begun_run(instance, other.pid)
    assert storage.claim_concurrency_slot("gpu", run_id, "step").is_claimed
    other.kill()
    other.wait()
    stale_runs.reap(instance)
    assert storage.get_concurrency_info("gpu").active_slot_count == 0


def test_a_launch_that_was_cut_off_at_any_point_does_not_block_the_next(instance):
    """A run is made before it is started: killed in between, nobody ever starts it."""
    for status in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED):
        instance.create_run_for_job(nothing, status=status, tags={launch.LAUNCHER_TAG: "terminal"})
    assert overlap(instance, "nothing") is not None
    launch.end_dead_runs(instance)
    assert overlap(instance, "nothing") is None


def test_slots_of_a_run_that_was_cut_off_while_it_ended_are_freed(instance):
    """Its end was written down, its slots were not given back: nobody would do it later."""
    storage = instance.event_log_storage
    storage.set_concurrency_slots("gpu", 1)
    ended = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.FAILURE).run_id
    alive = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED).run_id
    assert storage.claim_concurrency_slot("gpu", ended, "step").is_claimed
    assert not storage.claim_concurrency_slot("gpu", alive, "step").is_claimed
    launch.end_dead_runs(instance)
    assert storage.claim_concurrency_slot("gpu", alive, "step").is_claimed
    launch.end_dead_runs(instance)
    assert storage.get_concurrency_info("gpu").claimed_slots[0].run_id == alive
