"""The main job killed at random moments: run again, it finishes, and its tables are the same."""

import sys

import pytest
from main_job import launch_command, write_config
from random_kills import differences, results, run_under_kills

NUM_KILLS = 12


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_point_it_ends_with_the_same_tables(graph_run, tmp_path):
    root = tmp_path / "workspace"
    config = write_config(tmp_path, root)
    alone = [sys.executable, "-m", "agetf_pipeline.cli", "run", "--config", str(config)]
    commands = [launch_command(config, tmp_path / "home"), alone]
    unequal = []

    def whole() -> None:
        unequal.append(differences(results(root), results(graph_run.workspace.root)))

    kills = run_under_kills(commands, root, NUM_KILLS, 20261122, tmp_path / "log", whole)
    assert kills.count == NUM_KILLS
    assert not kills.broken
    assert not kills.orphans
    assert unequal
    assert not any(unequal)
