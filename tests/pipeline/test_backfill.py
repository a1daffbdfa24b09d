"""`make backfill`: what is chosen, what is run, what is kept."""

import shutil

import dagster as dg
import pytest
from tiny_shards import write_config, write_shard

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace
from jobs import backfill
from jobs.backfill import select_shards, split_into_runs

IMAGES = dg.AssetKey("caf_images")


@pytest.fixture
def run_backfill(tmp_path, monkeypatch):
    """Return a function that backfills `caf_images` and gives the exit code."""
    config = write_config(tmp_path, tmp_path / "workspace", "ingest: {num_workers: 1}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AGETF_CONFIG", str(config))

    def run(shards: str = "missing", *more: str) -> int:
        home = ["--home", str(tmp_path / "home"), "--config", str(config)]
        return backfill.main([*home, "--shards", shards, "--assets", "caf_images", *more])

    return run


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    for number, name in enumerate("abcde"):
        write_shard(workspace, name, number)
    return workspace


def materialisations() -> dict[str, int]:
    with dg.DagsterInstance.get() as instance:
        records = instance.fetch_materializations(IMAGES, limit=1000).records
    shards = [str(record.partition_key) for record in records]
    return {shard: shards.count(shard) for shard in sorted(set(shards))}


def num_runs() -> int:
    with dg.DagsterInstance.get() as instance:
        return instance.get_runs_count()


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("missing", "bd"),
        ("all", "abcd"),
        ("a", "a"),
        ("c, a", "ac"),
        ("b...d", "bcd"),
        ("a,c...d,missing", "abcd"),
        ("", ""),
    ],
)
def test_shards_are_chosen_by_name_by_range_and_by_what_is_missing(text, chosen):
    assert select_shards(text, list("abcd"), list("bd")) == list(chosen)


@pytest.mark.parametrize("text", ["x", "a...x", "d...b"])
def test_a_name_that_is_no_complete_shard_is_refused(text):
    with pytest.raises(DataError, match="Complete shards: a, b, c, d"):
        select_shards(text, list("abcd"), [])


def test_runs_hold_neighbours_alone():
    order = list("badcefgh")
    assert split_into_runs(list("abcd"), order, 25) == [list("badc")]
    assert split_into_runs(list("abfgh"), order, 2) == [["b", "a"], ["f", "g"], ["h"]]
    assert split_into_runs(["h", "b"], order, 25) == [["b"], ["h"]]


def test_many_shards_share_a_run_and_the_missing_ones_follow(run_backfill, workspace, capsys):
    assert run_backfill("b...d") == 0
    assert materialisations() == {"b": 1, "c": 1, "d": 1}
    assert num_runs() == 1
    assert run_backfill() == 0
    assert materialisations() == dict.fromkeys("abcde", 1)
    printed = capsys.readouterr().out
    assert "backfill: 3 shards in 1 runs" in printed
    assert "backfill: 2 shards in 2 runs" in printed or "backfill: 2 shards in 1 runs" in printed
    before = num_runs()
    assert run_backfill() == 0
    assert "nothing is missing" in capsys.readouterr().out
    assert num_runs() == before


def test_a_bad_shard_is_named_and_the_others_are_done(run_backfill, workspace, capsys):
    (workspace.raw_caf / "b" / "0.png").write_bytes(b"no picture")
    (workspace.raw_caf / "d" / "manifest.csv").unlink()
    assert run_backfill() == 1
    captured = capsys.readouterr()
    assert materialisations() == {"a": 1, "c": 1, "e": 1}
    assert "failed: b: caf_images: Expected at most 20% of the 1 files of caf/b" in captured.err
    assert "left out: d is incomplete" in captured.err
    assert "3 of 4 shards are done" in captured.out
    write_png = write_shard(workspace, "spare", 99) / "0.png"
    write_png.rename(workspace.raw_caf / "b" / "0.png")
    assert run_backfill("b") == 0
    assert materialisations() == dict.fromkeys("abce", 1)


def test_what_is_not_the_shards_fault_stops_the_backfill(
    run_backfill, workspace, capsys, monkeypatch
):
    from agetf_pipeline.core.errors import StageError
    from assets import running

    def fail(*_):
        raise StageError("Expected trained experts; found none.")

    monkeypatch.setattr(running, "run_stage", fail)
    assert run_backfill() == 1
    assert "not tried: 2 shards" in capsys.readouterr().err
    assert num_runs() == 4


def test_the_sensor_leaves_to_a_backfill_what_it_took(run_backfill, workspace):
    from jobs.sensors import new_caf_shards
    from resources.pipeline import PipelineResource

    assert run_backfill("a...d") == 0
    with dg.DagsterInstance.get() as instance:
        context = dg.build_sensor_context(instance=instance)
        result = new_caf_shards(context, pipeline=PipelineResource())
    assert isinstance(result, dg.SensorResult)
    assert [request.partition_key for request in result.run_requests or []] == ["e"]


def test_a_removed_shard_is_forgotten_when_it_is_asked_for(run_backfill, workspace, capsys):
    assert run_backfill("a...c") == 0
    assert run_backfill("b", "--forget") == 1
    assert "Move it away first" in capsys.readouterr().err
    shutil.rmtree(workspace.raw_caf / "b")
    assert run_backfill("missing") == 0
    assert "left out: b is removed" in capsys.readouterr().err
    assert run_backfill("b", "--forget") == 0
    assert "deleted data/tables/images/caf/b.parquet" in capsys.readouterr().out
    with dg.DagsterInstance.get() as instance:
        assert sorted(instance.get_dynamic_partitions("caf_shards")) == list("acde")
    assert sorted(path.stem for path in workspace.tables.rglob("images/caf/*")) == list("acde")
    assert run_backfill("missing") == 0
    assert capsys.readouterr().err == ""
