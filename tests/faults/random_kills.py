"""Kill the pipeline at random moments until it has had enough, then let it finish.

Used by a test on a tiny corpus, and by hand on the demo's:

    python tests/faults/random_kills.py --config configs/demo.yaml --kills 200 --folder /tmp/kills

Half of the kills take every process of the run at once, as a power cut does; the others take one of
them, whichever: the launcher, a decoding process, a training. What is left then has to end by
itself, or to go on.
"""

import argparse
import hashlib
import json
import logging
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_LOGGER = logging.getLogger(__name__)
_STARTED = re.compile(r"^\S+ (\w+)(?: \S+)?: started", re.MULTILINE)
_ORPHANS_END_S = 20.0
_LAST_HORIZON_S = 240.0
_PATIENCE = 4


@dataclass
class Kills:
    """What was killed, and what came of it.

    Attributes:
        by_stage: Kills by the stage that had been started last.
        whole: Kills of every process at once; the others took one process.
        starts: How often the pipeline was started.
        orphans: Command lines of processes that outlived their run.
        broken: Tables and networks that could not be opened after a kill.
    """

    by_stage: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    starts: int = 0
    orphans: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """All kills."""
        return sum(self.by_stage.values())


def run_under_kills(
    commands: Sequence[Sequence[str]],
    root: Path,
    num_kills: int,
    seed: int,
    log: Path,
    whole: Callable[[], None],
    first_horizon_s: float = 30.0,
) -> Kills:
    """Run the pipeline, killed that many times at random moments, and at last to its end.

    A moment lies log-uniformly between half a second and a horizon after the start, so that
    starting up is killed as well as long work. Where several starts in a row finish no further
    stage, the horizon grows: a stage that keeps nothing of an interrupted run must get through.

    Args:
        commands: Ways to run the pipeline, one chosen at random for each start.
        root: The workspace.
        num_kills: How many.
        seed: Of the moments and the victims.
        log: File for what a run prints.
        whole: Called whenever the pipeline came to its end; where kills are left, the workspace is
            removed after that, and it begins again.
        first_horizon_s: Longest time from a start to a kill, as long as stages are finished.

    Raises:
        RuntimeError: A run that nobody touched did not end well.
    """
    chance, kills = random.Random(seed), Kills()
    horizon_s, num_finished, fruitless = first_horizon_s, 0, 0
    while True:
        killed_before = kills.count
        process = _start(chance.choice(commands), log)
        kills.starts += 1
        while kills.count < num_kills:
            if _ends_within(process, math.exp(chance.uniform(math.log(0.5), math.log(horizon_s)))):
                break
            _kill(process, chance, kills, log)
        code = process.wait()
        kills.orphans += _end_orphans(process.pid)
        kills.broken += half_written(root)
        if code == 0:
            whole()
            if kills.count >= num_kills:
                return kills
            shutil.rmtree(root)
            num_finished = 0
        elif kills.count == killed_before:
            raise RuntimeError(f"a run that nobody touched ended with {code}: {log.read_text()}")
        reports = len(list((root / "stats" / "stages").rglob("*.json")))
        fruitless = 0 if reports > num_finished else fruitless + 1
        _LOGGER.info("%d kills, %d reports of stages", kills.count, reports)
        num_finished = reports
        if fruitless == 0:
            horizon_s = first_horizon_s
        elif fruitless % _PATIENCE == 0:
            horizon_s = min(1.4 * horizon_s, _LAST_HORIZON_S)


def results(root: Path) -> dict[str, str]:
    """Return the hashes of every table, trained network and derived picture of a workspace."""
    files = [
        *(root / "data/tables").rglob("*.parquet"),
        *(root / "models").rglob("*.safetensors"),
        *(root / "data/processed").rglob("*.*"),
    ]
    # A sidecar says when its picture was made.
    kept = sorted(path for path in files if path.is_file() and path.suffix != ".json")
    return {path.relative_to(root).as_posix(): _hash(path) for path in kept}


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Return the files that are in one of two results only, or are not the same in both."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def half_written(root: Path) -> list[str]:
    """Return the tables and networks that are there but cannot be opened."""
    import pyarrow.parquet as pq
    from safetensors import SafetensorError, safe_open

    broken = []
    for path in root.rglob("[!.]*.parquet"):
        try:
            pq.ParquetFile(path, page_checksum_verification=True).read()
        except OSError:
            broken.append(path.name)
    for path in root.rglob("[!.]*.safetensors"):
        try:
            safe_open(path, framework="np")
        except SafetensorError:
            broken.append(path.name)
    return broken


def _start(command: Sequence[str], log: Path) -> subprocess.Popen:
    with log.open("w") as stream:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def _ends_within(process: subprocess.Popen, seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill(process: subprocess.Popen, chance: random.Random, kills: Kills, log: Path) -> None:
    """Kill every process of the run, or one of them."""
    started = _STARTED.findall(log.read_text(errors="replace"))
    kills.by_stage[started[-1] if started else "starting up"] += 1
    if chance.random() < 0.5:
        kills.whole += 1
        # Also those that made a group of their own.
        for pid in _of_session(process.pid):
            _end(pid)
        return
    _end(chance.choice(_of_session(process.pid) or [process.pid]))


def _end_orphans(session: int) -> list[str]:
    """Return what still runs a while after a run's launcher ended, and end it."""
    until_s = time.monotonic() + _ORPHANS_END_S
    while (left := _of_session(session)) and time.monotonic() < until_s:
        time.sleep(0.05)
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ") for pid in left]
    for pid in left:
        _end(pid)
    return [command.decode(errors="replace") for command in commands]


def _of_session(session: int) -> list[int]:
    """Return the living processes of a session, by its first process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # pid (name) state parent group session ...; a name may hold spaces and brackets.
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(stat.parent.name))
    return found


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run undisturbed, then under kills; compare; print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=REPOSITORY / "configs" / "demo.yaml")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--horizon-s", type=float, default=30.0, help="longest time to a kill")
    parser.add_argument(
        "--folder", type=Path, required=True, help="for the workspaces, and the log"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    folder = options.folder.resolve()
    calm, killed = (
        _commands(options.config.resolve(), folder, name) for name in ("calm", "killed")
    )
    done = (folder / "calm" / "stats" / "stages" / "release.json").exists()
    if not done and _start(calm[0], folder / "calm.log").wait() != 0:
        print((folder / "calm.log").read_text())
        return 1
    expected = results(folder / "calm")
    unequal: list[str] = []
    rounds = 0

    def whole() -> None:
        nonlocal rounds
        rounds += 1
        unequal.extend(differences(results(folder / "killed"), expected))

    started_s = time.monotonic()
    kills = run_under_kills(
        killed,
        folder / "killed",
        options.kills,
        options.seed,
        folder / "killed.log",
        whole,
        options.horizon_s,
    )
    clean = not (kills.orphans or kills.broken or unequal)
    figures = {
        "kills": kills.count,
        "of_every_process_at_once": kills.whole,
        "by_stage": dict(kills.by_stage.most_common()),
        "starts": kills.starts,
        "whole_runs": rounds,
        "files_compared": len(expected),
        "files_that_differ": unequal,
        "half_written": kills.broken,
        "orphans": kills.orphans,
        "minutes": round((time.monotonic() - started_s) / 60, 1),
    }
    print(json.dumps(figures, indent=2))
    return 0 if clean else 1


def _commands(config: Path, folder: Path, name: str) -> list[list[str]]:
    """Return the two ways to run the pipeline: by Dagster, and by the command line alone."""
    written = folder / "config" / f"{name}.yaml"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(f"extends: {config}\nworkspace: {{root: {folder / name}}}\n")
    launcher = [
        "-m",
        "jobs.launch",
        "--config",
        str(written),
        "--home",
        str(folder / f"{name}_home"),
    ]
    alone = ["-m", "agetf_pipeline.cli", "run", "--config", str(written)]
    return [[sys.executable, *launcher], [sys.executable, *alone]]


if __name__ == "__main__":
    sys.exit(main())
