"""Backfills killed at random moments: what finished is kept, and the tables come out the same."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from tiny_shards import REPOSITORY, write_config, write_shard

from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace

NUM_SHARDS, NUM_KILLS = 20, 3
PATIENCE_S, STALL_S = 240, 20
DAEMON = Path(__file__).parent / "quick_daemon.py"
KINDS = ["quick_daemon", "dagster api grpc", "spawn_main"]
"""By what their command lines hold: the daemon, the code server, the workers of runs."""
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
IMAGES = dg.AssetKey("caf_images")
SHARDS = [f"s{number:02d}" for number in range(NUM_SHARDS)]


class Site:
    """A workspace of tiny shards, and the Dagster instance over it."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder / "workspace")
        for number, name in enumerate(SHARDS):
            write_shard(self.workspace, name, number, num_images=2)
        self.home = folder / "home"
        self.config = write_config(
            folder, self.workspace.root, "ingest: {num_workers: 1, chunk_size: 1}\n"
        )

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONWARNINGS": "ignore",
            "AGETF_CONFIG": str(self.config),
            "AGETF_WORKSPACE_FILE": str(REPOSITORY / "workspace.yaml"),
            "DAGSTER_HOME": str(self.home),
        }

    def command(self, shards: str = "missing") -> list[str]:
        """Return what `make backfill` runs."""
        where = ["--config", str(self.config), "--home", str(self.home)]
        chosen = ["--shards", shards, "--assets", "caf_images"]
        return [sys.executable, "-m", "jobs.backfill", *where, *chosen]

    def finish(self) -> None:
        done = subprocess.run(
            self.command(),
            cwd=REPOSITORY,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def events(self) -> Counter[str]:
        """Return how often each shard was materialised."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            records = instance.fetch_materializations(IMAGES, limit=1000).records
        return Counter(str(record.partition_key) for record in records)

    def tables(self) -> dict[str, str]:
        root = self.workspace.tables
        files = sorted(root.rglob("*.parquet"))
        return {path.relative_to(root).as_posix(): hash_file(path) for path in files}


@contextmanager
def session(command: list[str], site: Site) -> Iterator[subprocess.Popen]:
    """Run a command in a session of its own; nothing of it is left behind."""
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=site.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for member in members(process.pid):
            kill(member)
        process.wait()


def members(session_id: int) -> dict[int, str]:
    """Return the living processes of a session: id to command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # After the name in brackets: state, parent, group, session.
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(session) == session_id and state != "Z":
            found[int(folder.name)] = line
    return found


def kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, str]:
    site = Site(tmp_path_factory.mktemp("undisturbed"))
    site.finish()
    assert site.events() == Counter(SHARDS)
    tables = site.tables()
    assert {f"images/caf/{shard}.parquet" for shard in SHARDS} <= set(tables)
    return tables


@pytest.mark.slow
def test_a_killed_backfill_keeps_every_finished_shard_and_goes_on(undisturbed, tmp_path):
    site = Site(tmp_path)
    moments = random.Random(20261123)
    finished: Counter[str] = Counter()
    for _ in range(NUM_KILLS):
        with session(site.command(), site) as process:
            wanted = min(len(finished) + moments.randint(1, 5), NUM_SHARDS)
            wait_for(
                lambda wanted=wanted: site.home.exists() and len(site.events()) >= wanted,
                f"{wanted} shards",
            )
            kill(process.pid)
        after = site.events()
        assert after >= finished
        finished = after
        tables = site.tables()
        assert all(f"images/caf/{shard}.parquet" in tables for shard in finished)
    site.finish()
    assert site.events() == Counter(SHARDS)
    assert site.tables() == undisturbed


@pytest.mark.slow
def test_three_processes_killed_at_random_during_backfills_by_the_daemon(undisturbed, tmp_path):
    site = Site(tmp_path)
    site.home.mkdir()
    shutil.copyfile(REPOSITORY / "configs" / "dagster.yaml", site.home / "dagster.yaml")
    chance = random.Random(20261123)
    kinds = chance.sample(KINDS, k=NUM_KILLS)
    killed: list[int] = []
    with dg.DagsterInstance.from_config(str(site.home)) as instance:
        while len(killed) < NUM_KILLS:
            submit_backfill(instance)
            with session([sys.executable, str(DAEMON)], site) as daemon:
                while len(killed) < NUM_KILLS and daemon.poll() is None:
                    if not wait_for_progress(instance, daemon, chance.randint(1, 3)):
                        break  # nothing moves any more: whoever sees that starts it again
                    kind = kinds[len(killed)]
                    living = {n: line for n, line in members(daemon.pid).items() if kind in line}
                    # No run may be at work just now; then the daemon goes.
                    victim = chance.choice(sorted(living)) if living else daemon.pid
                    kill(victim)
                    killed.append(victim)
        kept = instance.get_materialized_partitions(IMAGES)
    assert kept  # something had finished, so the kills came during the work
    site.finish()
    events = site.events()
    assert set(events) == set(SHARDS)
    assert max(events.values()) <= 1 + NUM_KILLS
    assert site.tables() == undisturbed


def submit_backfill(instance: dg.DagsterInstance) -> None:
    """Ask the daemon for what is missing, as the UI does; in several runs."""
    from definitions import defs

    known = instance.get_dynamic_partitions("caf_shards")
    if not known:
        # A partition that is not asked for keeps its neighbours out of one run.
        keys = [key for s in SHARDS for key in ([s, f"gap-{s}"] if s[-1] in "49" else [s])]
        instance.add_dynamic_partitions("caf_shards", keys)
    missing = set(SHARDS) - instance.get_materialized_partitions(IMAGES)
    assert missing, "everything was done before the last process was killed"
    instance.add_backfill(
        PartitionBackfill.from_asset_partitions(
            backfill_id=uuid.uuid4().hex[:8],
            asset_graph=defs.resolve_asset_graph(),
            partition_names=sorted(missing),
            asset_selection=[IMAGES],
            backfill_timestamp=time.time(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
    )


def wait_for_progress(
    instance: dg.DagsterInstance, daemon: subprocess.Popen, num_more: int
) -> bool:
    """Wait until so many more shards are done; False where nothing moves or the daemon ended."""
    before = len(instance.get_materialized_partitions(IMAGES))
    deadline = time.monotonic() + PATIENCE_S
    last, last_s = before, time.monotonic()
    while daemon.poll() is None and time.monotonic() < deadline:
        now = len(instance.get_materialized_partitions(IMAGES))
        if now >= min(before + num_more, NUM_SHARDS):
            return True
        if now > last:
            last, last_s = now, time.monotonic()
        unfinished = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
        asked = instance.get_backfills(status=BulkActionStatus.REQUESTED)
        if not unfinished and not asked and instance.get_runs_count() and last > 0:
            return False
        if last > 0 and time.monotonic() - last_s > STALL_S:
            return False
        time.sleep(0.02)
    return False
