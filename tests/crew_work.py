"""Squares that several processes compute together; imported by the server they are forked from."""

import os
import signal
import time
from pathlib import Path

import polars as pl
from squares import SPEC

from agetf_pipeline.core.work import StageReport, joining, run_once
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data import crew, crew_board
from agetf_pipeline.data.hands import Hands, with_hands
from agetf_pipeline.data.incremental import update_table
from agetf_pipeline.data.tables import table_path

STAGE, PARTITION, CHUNK, NUM = "square", "x", 4, 40


def run(
    workspace: Workspace,
    num: int = NUM,
    version: str = "1",
    seconds: float = 0.0,
    die_at: int | None = None,
    hang_at: int | None = None,
    meets: tuple[int, ...] = (),
) -> StageReport:
    """Run the stage; note each chunk, with the process that computes it, in `calls.txt`.

    Args:
        workspace: The workspace.
        num: Rows.
        version: Of each row, and of the settings.
        seconds: That a chunk takes.
        die_at: The chunk of this process at which it is killed.
        hang_at: The chunk of this process at which it is stopped.
        meets: In its first chunk this process waits until others have begun so many chunks each.
    """
    wanted = pl.DataFrame(
        {
            "image_id": [f"{n:03}" for n in range(num)],
            "version": [version] * num,
            "number": list(range(num)),
        }
    )
    count = 0

    def compute(chunk: pl.DataFrame) -> pl.DataFrame:
        nonlocal count
        with (workspace.root / "calls.txt").open("a") as stream:
            stream.write(f"{os.getpid()} {chunk['image_id'][0]}\n")
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if count == hang_at:
            os.kill(os.getpid(), signal.SIGSTOP)
        others = chunks_by_process(workspace)
        while count == 0 and not _have_begun(others, meets):
            time.sleep(0.01)
            others = chunks_by_process(workspace)
        count += 1
        time.sleep(seconds)
        return chunk.select("image_id", "version", square=pl.col("number") ** 2)

    def work() -> StageReport:
        result = update_table(workspace, SPEC, PARTITION, wanted, compute, CHUNK, "squares")
        counts = {"num_computed": result.num_computed, "num_reused": result.num_reused}
        path = workspace.relative(table_path(workspace, SPEC, PARTITION))
        return StageReport(STAGE, counts=counts, outputs={"squares": path})

    workspace.root.mkdir(parents=True, exist_ok=True)
    crew_board.JOINABLE[STAGE] = SPEC.name
    try:
        return run_once(workspace, STAGE, {"version": version}, "1", {}, work, PARTITION)
    finally:
        del crew_board.JOINABLE[STAGE]


def _have_begun(by_process: dict[int, list[str]], meets: tuple[int, ...]) -> bool:
    others = sorted(len(firsts) for pid, firsts in by_process.items() if pid != os.getpid())
    return len(others) >= len(meets) and all(map(int.__ge__, others[::-1], sorted(meets)[::-1]))


def lead(root: Path, max_silence_s: float = 60.0, **how) -> None:
    """Run the stage as the process that leads."""
    with with_hands(Hands(max_silence_s=max_silence_s)):
        run(Workspace(root), **how)


def join(root: Path, **how) -> None:
    """Wait for a board, and work at it until nothing is left; once more where it was replaced."""
    workspace = Workspace(root)
    folder = crew_board.crew_folder(workspace, SPEC.name, PARTITION)
    while True:
        until_s = time.monotonic() + 20
        while crew_board.read_board(folder) is None:
            if time.monotonic() > until_s:
                return
            time.sleep(0.01)
        try:
            with joining(shown=False):
                run(workspace, **how)
        except crew.ShiftEndedError as ended:
            with (root / "shifts.txt").open("a") as stream:
                stream.write(f"{os.getpid()} {ended.shift.num_chunks}\n")
            if ended.shift.nothing_left:
                return


def chunks_by_process(workspace: Workspace) -> dict[int, list[str]]:
    """Return what each process began to compute."""
    found: dict[int, list[str]] = {}
    for line in (workspace.root / "calls.txt").read_text().splitlines():
        pid, first = line.split()
        found.setdefault(int(pid), []).append(first)
    return found
