"""`agetf join`: what it takes, and what it says where nobody has work."""

from pathlib import Path

import pytest

from agetf_pipeline.cli import main
from agetf_pipeline.commands import join
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.work import stage_lock
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.crew_board import JOINABLE
from agetf_pipeline.stages import joining

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "test.yaml"


def call(root: Path, *arguments: str) -> int:
    return main(["join", *arguments, "--config", str(CONFIG), f"workspace.root={root}"])


def test_every_stage_that_can_be_joined_is_offered(tmp_path, capsys):
    for stage in JOINABLE:
        assert call(tmp_path, stage, "--wait", "0", "--partition", "caf/a") == 0
        said = f"{stage} caf/a: nobody had work to share within 0 s"
        assert said in capsys.readouterr().out
    assert call(tmp_path, "predict", "--wait", "0") == 0
    assert list(tmp_path.iterdir()) == []  # who looks on leaves nothing
    with pytest.raises(SystemExit):
        call(tmp_path, "train")


def test_a_stage_that_cannot_be_shared_is_refused(tmp_path):
    with pytest.raises(StageError, match="one of predict, enhance"):
        joining.join_stage("filter", None, Workspace(tmp_path))  # type: ignore[arg-type]


def test_it_says_what_it_did_and_what_is_left_to_do(tmp_path, monkeypatch, capsys):
    seen = []

    def joined(stage, config, workspace, partition, wait_s):
        seen.append((stage, config.predict.batch_size, partition, wait_s))
        return [joining.Joined("caf/a", 3, 24), joining.Joined("caf/b", 1, 8, is_abandoned=True)]

    monkeypatch.setattr(joining, "join_stage", joined)
    assert call(tmp_path, "predict", "predict.batch_size=7") == 0
    out = capsys.readouterr().out
    assert seen == [("predict", 7, None, join._WAIT_S)]
    assert "predict caf/a: 3 chunks computed here, 24 rows\n  predict caf/b: 1 chunks" in out
    assert out.count("note:") == 1
    assert "`agetf predict --partition caf/b` goes on" in out


def test_partitions_that_others_are_at_come_last(tmp_path):
    import fcntl

    workspace = Workspace(tmp_path)
    held = []
    for partition in ("b", "c"):
        lock = stage_lock(workspace, "predict", partition)
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.append(lock.open("a+"))
        fcntl.flock(held[-1], fcntl.LOCK_EX)
    order = []
    for partition in joining.unclaimed_first(workspace, "predict", ["a", "b", "c", "d"]):
        order.append(partition)
        if partition == "d":
            held.pop().close()  # c is free again
    assert order == ["a", "d", "c", "b"]
    held.pop().close()
    assert list(joining.unclaimed_first(workspace, "predict", ["a", "b"])) == ["a", "b"]


def test_two_that_begin_at_once_take_different_partitions(tmp_path):
    # Before either has the stage's lock: a run looks at its inputs first.
    workspace = Workspace(tmp_path)
    first, second = (
        joining.unclaimed_first(workspace, "predict", ["a", "b", "c", "d"]) for _ in range(2)
    )
    assert [next(first), next(second), next(first), next(second)] == ["a", "b", "c", "d"]
    # What the other was at comes at the end, as it may have failed there.
    second.close()
    assert sorted(first) == ["b", "d"]
