"""Runs that nobody works on any more: their processes are dead, but Dagster says they run.

A run's process that dies is noticed by the code server that started it, within seconds. Where that
was killed too, or the machine went down, nobody is left who would: the launcher that we use has no
health check of its own. Each run has written the id of its process into its events; a process that
is gone, or younger than that event, does not work on it.

    python -m jobs.stale_runs --new-code-server

is for a container of a code location, before its server starts: whatever ran in it, does not.
"""

import argparse
import logging
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import dagster as dg

_LOGGER = logging.getLogger(__name__)
_GRPC_TAG = ".dagster/grpc_info"
_PERIOD_S = 30.0
_CLOCK_SLACK_S = 2.0
_WORKED_ON = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_MESSAGE = (
    "The process of this run is gone (killed, or the machine was restarted). What it finished is "
    "kept: launch it again, and it goes on."
)

_known: dict[str, tuple[int, int]] = {}
"""By run: its process, and the ticks since the machine's start at which that began."""


def reap(instance: dg.DagsterInstance, among: set[str] | None = None) -> set[str]:
    """End the runs whose processes on this machine are dead, and free their slots.

    Args:
        instance: The instance.
        among: Ids of runs to look at; None looks at all.

    Returns:
        The ids of the runs that were ended.
    """
    dead = {run_id for run_id in find_stale(instance) if among is None or run_id in among}
    for run_id in dead:
        _end(instance, run_id)
    free_slots_of_ended_runs(instance)
    return dead


def free_slots_of_ended_runs(instance: dg.DagsterInstance) -> set[str]:
    """Free the slots of pools that runs hold which have ended; return the ids of these runs.

    A run's end is written down first and its slots are given back after that: who is killed in
    between leaves them taken, and every later step of the pool would wait for ever.
    """
    storage = instance.event_log_storage
    pools = [storage.get_concurrency_info(key) for key in storage.get_concurrency_keys()]
    holders = {held.run_id for pool in pools for held in (*pool.claimed_slots, *pool.pending_steps)}
    runs = {run_id: instance.get_run_by_id(run_id) for run_id in holders}
    ended = {run_id for run_id, run in runs.items() if run is None or run.is_finished}
    for run_id in ended:
        storage.free_concurrency_slots_for_run(run_id)
        _LOGGER.info("slots of run %s, which has ended, are free again", run_id[:8])
    return ended


def find_stale(instance: dg.DagsterInstance) -> set[str]:
    """Return the ids of the runs whose processes on this machine are dead.

    A run that has not written yet which process it has is left to Dagster's start timeout; one
    that a code server elsewhere started (it has a port, not a socket) cannot be judged from here.
    """
    stale = set()
    runs = instance.get_runs(dg.RunsFilter(statuses=_WORKED_ON))
    for gone in _known.keys() - {run.run_id for run in runs}:
        del _known[gone]
    for run in runs:
        if '"port"' in run.tags.get(_GRPC_TAG, ""):
            continue
        worker = _worker_of(instance, run.run_id)
        if worker is not None and not _works(run.run_id, *worker):
            stale.add(run.run_id)
    return stale


def end_runs_of_new_code_server(instance: dg.DagsterInstance) -> set[str]:
    """End every run that a code server had begun: the one that starts now has begun none."""
    runs = instance.get_runs(dg.RunsFilter(statuses=_WORKED_ON))
    begun = {run.run_id for run in runs if _GRPC_TAG in run.tags}
    for run_id in begun:
        _end(instance, run_id)
    return begun


def watch(instance: dg.DagsterInstance, stop: threading.Event) -> threading.Thread:
    """Reap now, and go on in a thread until `stop` is set.

    Later on a run is ended only when two looks in a row found it dead: its code server, where that
    lives, says better how it died.
    """
    reap(instance)

    def look() -> None:
        suspects: set[str] = set()
        while not stop.wait(_PERIOD_S):
            try:
                reap(instance, among=suspects)
                suspects = find_stale(instance)
            except Exception:  # a locked database, say; there is a next time
                _LOGGER.warning("could not look for stale runs", exc_info=True)

    thread = threading.Thread(target=look, name="stale-runs", daemon=True)
    thread.start()
    return thread


def _end(instance: dg.DagsterInstance, run_id: str) -> None:
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, _MESSAGE)
    else:
        instance.report_run_failed(run, _MESSAGE)
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    _LOGGER.warning("run %s had been cut off; what it finished is kept", run_id[:8])


def _worker_of(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """Return the id of the run's process, and when it was written down (Unix time, s)."""
    records = instance.get_records_for_run(
        run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, ascending=True
    ).records
    for record in reversed(records):
        entry = record.event_log_entry
        event = entry.dagster_event
        pid = None if event is None else event.engine_event_data.metadata.get("pid")
        if pid is not None:
            return int(str(pid.value)), entry.timestamp
    return None


def _works(run_id: str, pid: int, written_s: float) -> bool:
    """Whether this process is still the one that wrote its id at that time.

    Once it was found to be, it is known by the kernel's count of ticks at its start: the clock may
    be set anew while it runs, and with it the time at which the machine seems to have started.
    """
    with suppress(OSError, IndexError, ValueError):
        # The name of the program, in parentheses, may hold blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        state, ticks = fields[0], int(fields[19])
        if state in "ZX":
            return False
        if run_id in _known:
            return _known[run_id] == (pid, ticks)
        if _started_s(ticks) <= written_s + _CLOCK_SLACK_S:
            _known[run_id] = pid, ticks
            return True
    return False


def _started_s(ticks: int) -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    return 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """End stale runs of the instance in DAGSTER_HOME."""
    parser = argparse.ArgumentParser(prog="python -m jobs.stale_runs")
    parser.add_argument(
        "--new-code-server", action="store_true", help="no code server works on any run now"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with dg.DagsterInstance.get() as instance:
        ended = reap(instance)
        if options.new_code_server:
            ended |= end_runs_of_new_code_server(instance)
    _LOGGER.info("%d stale runs ended", len(ended))
    return 0


if __name__ == "__main__":
    sys.exit(main())
