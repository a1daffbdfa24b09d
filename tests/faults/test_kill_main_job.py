"""The main job killed at random moments: run again, it finishes, and its tables are the same."""

import os
import random
import signal
import subprocess
import time

import pytest
from main_job import REPOSITORY, launch, launch_command, write_config

from agetf_pipeline.core.hashing import hash_file

NUM_KILLS = 4


def results(root) -> dict[str, str]:
    """Hashes of every table and every trained network."""
    files = [*(root / "data/tables").rglob("*.parquet"), *(root / "models").rglob("*.safetensors")]
    return {path.relative_to(root).as_posix(): hash_file(path) for path in sorted(files)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_point_it_ends_with_the_same_tables(graph_run, tmp_path):
    config = write_config(tmp_path, tmp_path / "workspace")
    moments = random.Random(20261122)
    for _ in range(NUM_KILLS):
        process = subprocess.Popen(
            launch_command(config, tmp_path / "home"),
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(moments.uniform(5, 25))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert half_written(tmp_path / "workspace") == []
    done = launch(config, tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(tmp_path / "workspace") == results(graph_run.workspace.root)


def half_written(root) -> list[str]:
    """Names of tables and networks that are there but cannot be opened."""
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
