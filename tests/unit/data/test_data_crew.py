"""Several processes at one table: the same bytes, whoever computed what, and whoever died."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import crew_work
import pytest
from crew_work import CHUNK, NUM, PARTITION, STAGE
from forked import FORKS, KILLED, ensure_server, preload
from squares import SPEC

from agetf_pipeline.core.errors import StageError, UnavailableError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.locks import Claims
from agetf_pipeline.core.work import joining, load_report
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data import crew, crew_board
from agetf_pipeline.data.hands import Hands, with_hands
from agetf_pipeline.data.tables import table_path

preload("crew_work")
NUM_CHUNKS = NUM // CHUNK
SLOW_S = 0.05


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "one").mkdir()
    return Workspace(tmp_path / "one")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The table's hash where one process has computed it."""
    workspace = Workspace(tmp_path_factory.mktemp("alone"))
    assert crew_work.run(workspace).counts == {"num_computed": NUM, "num_reused": 0}
    return hash_file(table_path(workspace, SPEC, PARTITION))


@dataclass
class Started:
    """A child, whose id a type checker knows of."""

    process: BaseProcess
    pid: int

    def end(self) -> int | None:
        """Wait for it, and return its exit code."""
        self.process.join(60)
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def start(function: Callable, *arguments: object, **more: object) -> Started:
    ensure_server()
    process = FORKS.Process(target=function, args=arguments, kwargs=more)
    process.start()
    assert process.pid is not None
    return Started(process, process.pid)


def wait_for(done: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not done():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def has_board(workspace: Workspace) -> bool:
    return (
        crew_board.read_board(crew_board.crew_folder(workspace, SPEC.name, PARTITION)) is not None
    )


def assert_finished(workspace: Workspace, alone: str) -> None:
    assert hash_file(table_path(workspace, SPEC, PARTITION)) == alone
    state = [
        path for path in workspace.state.rglob("*") if path.is_file() and "locks" not in path.parts
    ]
    assert state == []
    assert not list(workspace.root.rglob(".tmp-*"))
    report = load_report(workspace, STAGE, PARTITION)
    assert report is not None
    assert sum(report.counts.values()) == NUM


@pytest.mark.parametrize("num_joining", [1, 2])
def test_the_table_is_the_same_whoever_computed_what(workspace, alone, num_joining):
    joining = [start(crew_work.join, workspace.root, seconds=SLOW_S) for _ in range(num_joining)]
    leader = start(crew_work.lead, workspace.root, seconds=SLOW_S, meets=(1,) * num_joining)
    assert {process.end() for process in (leader, *joining)} == {0}
    assert_finished(workspace, alone)
    by_process = crew_work.chunks_by_process(workspace)
    computed = Counter(first for firsts in by_process.values() for first in firsts)
    assert len(computed) == NUM_CHUNKS
    assert set(computed.values()) == {1}
    assert set(by_process) == {leader.pid, *(process.pid for process in joining)}


def test_a_worker_that_is_killed_loses_the_chunk_it_was_at(workspace, alone):
    worker = start(crew_work.join, workspace.root, seconds=SLOW_S, die_at=1)
    leader = start(crew_work.lead, workspace.root, seconds=SLOW_S, meets=(2,))
    assert (leader.end(), worker.end()) == (0, KILLED)
    assert_finished(workspace, alone)
    by_process = crew_work.chunks_by_process(workspace)
    assert len(by_process[worker.pid]) == 2
    assert by_process[worker.pid][1] in by_process[leader.pid]
    assert sum(map(len, by_process.values())) == NUM_CHUNKS + 1


def test_a_leader_that_is_killed_is_followed_by_another_while_workers_go_on(workspace, alone):
    worker = start(crew_work.join, workspace.root, seconds=SLOW_S)
    leader = start(crew_work.lead, workspace.root, seconds=SLOW_S, die_at=2, meets=(1,))
    assert leader.end() == KILLED
    assert has_board(workspace)
    next_one = start(crew_work.lead, workspace.root, seconds=SLOW_S)
    assert (next_one.end(), worker.end()) == (0, 0)
    assert_finished(workspace, alone)
    by_process = crew_work.chunks_by_process(workspace)
    # What the dead one was at, and nothing else, was computed twice.
    assert sum(map(len, by_process.values())) == NUM_CHUNKS + 1
    assert by_process[worker.pid]


def test_workers_finish_what_a_dead_leader_hung_out_and_the_next_run_takes_it_over(
    workspace, alone
):
    leader = start(crew_work.lead, workspace.root, die_at=0)
    leader.end()
    assert has_board(workspace)
    worker = start(crew_work.join, workspace.root)
    assert worker.end() == 0
    assert crew_work.run(workspace).counts == {"num_computed": 0, "num_reused": NUM}
    assert_finished(workspace, alone)


@pytest.mark.parametrize("how", [{"version": "2"}, {"num": NUM - 1}])
def test_who_would_compute_something_else_is_refused(workspace, alone, how):
    leader = start(crew_work.lead, workspace.root, seconds=SLOW_S)
    wait_for(lambda: has_board(workspace))
    with joining(), pytest.raises(StageError, match="Expected to join square x with what"):
        crew_work.run(workspace, **how)
    leader.end()
    assert set(crew_work.chunks_by_process(workspace)) == {leader.pid}
    assert_finished(workspace, alone)


def test_a_run_with_other_settings_sends_the_workers_of_the_last_one_away(workspace, alone):
    old = start(crew_work.lead, workspace.root, version="0", die_at=1)
    old.end()
    worker = start(crew_work.join, workspace.root, version="0", seconds=0.2)
    wait_for(lambda: worker.pid in crew_work.chunks_by_process(workspace))
    crew_work.run(workspace)
    assert_finished(workspace, alone)
    # It waited for the chunk that the other was at, which cannot come later.
    assert not list((workspace.state / "parts").rglob("*.parquet"))
    worker.kill()


def test_an_error_takes_the_board_down(workspace):
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agetf_pipeline.data.incremental.conform", fail)
        with pytest.raises(RuntimeError, match="broken"):
            crew_work.run(workspace)
    assert not has_board(workspace)


def test_nothing_is_hung_out_for_a_single_chunk(workspace, monkeypatch):
    monkeypatch.setattr(crew, "lead", None)
    assert crew_work.run(workspace, num=CHUNK).counts["num_computed"] == CHUNK
    assert not (workspace.state / "locks" / "crew").exists()


def test_a_worker_that_hangs_stops_the_stage(workspace, alone):
    worker = start(crew_work.join, workspace.root, seconds=SLOW_S, hang_at=0)
    leader = start(crew_work.lead, workspace.root, seconds=SLOW_S, meets=(1,))
    parts = workspace.state / "parts" / SPEC.name / PARTITION
    wait_for(lambda: len(list(parts.glob("[!.]*.parquet"))) == NUM_CHUNKS - 1)
    assert leader.process.is_alive()  # it waits for the last one
    leader.kill()
    with with_hands(Hands(max_silence_s=0.3)), pytest.raises(UnavailableError, match=r"0\.3 s"):
        crew_work.run(workspace)
    worker.kill()
    assert crew_work.run(workspace).counts == {"num_computed": CHUNK, "num_reused": NUM - CHUNK}
    assert_finished(workspace, alone)


def test_workers_that_a_run_starts_end_with_it(workspace, alone):
    started = []

    def hire(number: int):
        started.append(start(crew_work.join, workspace.root, seconds=SLOW_S).process)
        return started[-1]

    with with_hands(Hands(num_workers=3, start=hire)):
        crew_work.run(workspace, seconds=SLOW_S, meets=(1, 1))
    assert len(started) == 2
    assert_finished(workspace, alone)
    assert len(crew_work.chunks_by_process(workspace)) == 3
    for process in started:  # closed: they were waited for
        with pytest.raises(ValueError, match="closed"):
            process.is_alive()


def test_a_number_is_one_process_s_at_a_time(tmp_path):
    path = tmp_path / "claims"
    path.touch()
    claims = Claims(path)
    assert claims.take(5)
    assert claims.take(7)
    other = start(_take, path, [5, 6, 7])
    assert other.end() == 0b010  # 6 alone
    claims.give_back(5)
    claims.close()
    other = start(_take, path, [5, 6, 7])
    assert other.end() == 0b111
    with pytest.raises(FileNotFoundError):
        Claims(tmp_path / "absent")


def _take(path: Path, numbers: list[int]) -> None:
    claims = Claims(path)
    raise SystemExit(sum(claims.take(number) << bit for bit, number in enumerate(numbers)))
