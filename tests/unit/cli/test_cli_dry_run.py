"""`--dry-run`: what would run, what cannot yet, and that nothing is changed by asking."""

import json
from pathlib import Path

import pytest

from agetf_pipeline import cli

OPTIONS = ["synthesize.num_ffhq_images=4", "synthesize.num_subjects_per_shard=1"]


@pytest.fixture
def ask(tmp_path, capsys):
    """Run a command over the workspace, and return the JSON that it prints."""

    def run(*words: str) -> list[dict]:
        where = f"workspace.root={tmp_path}"
        assert cli.main([*words, "--config", "configs/test.yaml", "--json", where, *OPTIONS]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def written(root: Path) -> dict[str, bytes]:
    """Return every file but the indices that reading a corpus keeps."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "data/.state" not in str(path)
    }


def test_nothing_is_drawn_where_somebody_only_asks(ask, tmp_path):
    (plan,) = ask("synthesize", "--dry-run")
    assert plan["verdict"] == "would_run"
    assert plan["estimated_s"] is None
    assert "not run here" in plan["estimated_from"]
    assert plan["settings"]["synthesize"]["num_ffhq_images"] == 4
    assert written(tmp_path) == {}


def test_what_ran_is_nothing_new_and_what_it_fed_would_run(ask, tmp_path):
    ask("synthesize")
    before = written(tmp_path)
    plans = {(plan["stage"], plan["partition"]): plan for plan in ask("run", "--dry-run")}
    assert plans["synthesize", None]["verdict"] == "nothing_new"
    assert plans["synthesize", None]["estimated_s"] == 0
    assert plans["ingest", "ffhq_aging"]["verdict"] == "would_run"
    assert plans["relabel", None]["verdict"] == "cannot_run_yet"
    assert plans["relabel", None]["reason"]
    assert written(tmp_path) == before


def test_the_time_is_estimated_from_runs_before(ask, tmp_path):
    ask("synthesize")
    ask("ingest", "--partition", "ffhq_aging")
    first, *others = ask("ingest", "--dry-run")
    assert (first["partition"], first["verdict"]) == ("ffhq_aging", "nothing_new")
    assert others
    for plan in others:
        assert plan["verdict"] == "would_run"
        assert plan["estimated_from"] == "the median of 1 other partitions"
        assert plan["estimated_s"] >= 0


def test_for_a_person_it_is_a_line_a_partition(tmp_path, capsys):
    where = f"workspace.root={tmp_path}"
    assert cli.main(["relabel", "--dry-run", "--config", "configs/test.yaml", where]) == 0
    settings, verdict = capsys.readouterr().out.splitlines()[:2]
    assert settings.startswith('relabel: {"relabel": ')
    assert verdict.startswith("  relabel: cannot run yet. Expected ")
