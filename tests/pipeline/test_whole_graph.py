"""The main job end to end: what it leaves behind, and that running it again does nothing."""

import csv
import json

import dagster as dg
import polars as pl
import pytest
from main_job import launch

from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.data.schemas import TABLES
from agetf_pipeline.data.tables import list_partitions, read_table

ANCHORS = [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]


def table_hashes(workspace) -> dict[str, str]:
    return {
        path.relative_to(workspace.tables).as_posix(): hash_file(path)
        for path in sorted(workspace.tables.rglob("*.parquet"))
    }


@pytest.mark.slow
def test_every_table_is_there_and_fits_its_schema(graph_run):
    for spec in TABLES.values():
        frame = read_table(graph_run.workspace, spec)
        if spec.name != "quarantine":
            assert frame.height > 0, spec.name


@pytest.mark.slow
def test_the_seed_outputs_have_their_names(graph_run):
    root = graph_run.workspace.root
    labels = json.loads((root / "data/processed/ffhq_aging_moe_labels.json").read_text())
    with (root / "data/processed/ffhq_aging_moe_labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    images = read_table(graph_run.workspace, TABLES["images"], ["ffhq_aging"])
    assert len(labels) == len(rows) == images.height
    assert (root / "stats/ffhq_aging_moe_report.csv").stat().st_size > 0
    run = root / "outputs/experiments/test"
    for name in ("report.md", "report.html", "metrics.json", "grid.png", "config.yaml"):
        assert (run / name).stat().st_size > 0, name


@pytest.mark.slow
def test_every_enhanced_image_is_linked_to_its_original(graph_run):
    workspace = graph_run.workspace
    images = read_table(workspace, TABLES["images"])
    enhanced = read_table(workspace, TABLES["enhanced"])
    caf = images.filter(pl.col("partition").str.starts_with("caf/"))
    assert set(enhanced["image_id"]) == set(caf["image_id"])
    paths = dict(zip(images["image_id"], images["path"], strict=True))
    for row in enhanced.filter(pl.col("status") == "ok").iter_rows(named=True):
        assert hash_file(workspace.resolve(row["enhanced_path"])) == row["enhanced_sha256"]
        assert hash_file(workspace.resolve(paths[row["image_id"]])) == row["image_id"]
        sidecar = json.loads(workspace.resolve(row["sidecar_path"]).read_text())
        assert row["image_id"] in json.dumps(sidecar)
        assert row["enhanced_sha256"] in json.dumps(sidecar)


@pytest.mark.slow
def test_every_figure_of_the_report_has_its_sample_size_and_says_synthetic(graph_run):
    run = graph_run.workspace.experiments / "test"
    report = (run / "report.md").read_text()
    assert "synthetic" in report.lower()
    metrics = json.loads((run / "metrics.json").read_text())
    figures = list(_figures(metrics))
    assert len(figures) > 10
    for figure in figures:
        assert figure["synthetic"] is True
        assert figure["value"] is not None or figure["reason"]
        assert figure["value"] is None or figure["n"] > 0


def _figures(value):
    if isinstance(value, dict):
        if {"value", "n", "synthetic"} <= set(value):
            yield value
        else:
            for inner in value.values():
                yield from _figures(inner)


@pytest.mark.slow
def test_dagster_knows_every_materialisation_and_check(graph_run, monkeypatch):
    from definitions import defs

    monkeypatch.setenv("DAGSTER_HOME", str(graph_run.home))
    graph = defs.resolve_asset_graph()
    with dg.DagsterInstance.get() as instance:
        for key in graph.toposorted_asset_keys:
            assert instance.get_latest_materialization_event(key) is not None, key
        shards = set(instance.get_dynamic_partitions("caf_shards"))
        assert len(shards) == 2
        enhanced = dg.AssetKey("caf_enhanced")
        assert instance.get_materialized_partitions(enhanced) == shards
        checks = list(graph.asset_check_keys)
        assert len(checks) >= 10
        storage = instance.event_log_storage
        for check in checks:
            records = storage.get_asset_check_execution_history(check, limit=1)
            assert records, check


@pytest.mark.slow
def test_the_model_is_registered_and_renders_ten_ages(graph_run, tmp_path):
    from PIL import Image

    from agetf_pipeline.cli import main

    source = tmp_path / "in"
    source.mkdir()
    images = read_table(graph_run.workspace, TABLES["images"], ["ffhq_aging"])
    for path in images["path"].head(2):
        original = graph_run.workspace.resolve(path)
        (source / original.name).write_bytes(original.read_bytes())
    out = tmp_path / "out"
    database = f"sqlite:///{graph_run.workspace.root / 'mlflow.db'}"
    arguments = ["render", "--input", str(source), "--out", str(out), "--aligned"]
    model = ["--model", "models:/age-transformer@champion", "--tracking-uri", database]
    assert main([*arguments, *model]) == 0
    grids = sorted(out.glob("*_grid.png"))
    assert len(grids) == 2
    singles = sorted(out.glob("*_age_*.png"))
    assert len(singles) == 2 * len(ANCHORS)
    with Image.open(singles[0]) as first:
        assert first.size == (64, 64)


@pytest.mark.slow
def test_ages_are_estimated_for_files(graph_run, tmp_path):
    from agetf_pipeline.cli import main

    folder = graph_run.workspace.raw_ffhq
    out = tmp_path / "ages.csv"
    arguments = ["estimate-age", "--config", str(graph_run.config), "--aligned"]
    assert main([*arguments, "--input", str(folder), "--out", str(out)]) == 0
    ages = pl.read_csv(out)
    assert ages["age_years"].is_between(0, 101).all()
    assert (ages["interval_low_years"] <= ages["interval_high_years"]).all()


@pytest.mark.slow
def test_running_again_changes_no_table_and_redoes_nothing(graph_run):
    before = table_hashes(graph_run.workspace)
    again = launch(graph_run.config, graph_run.home)
    assert again.returncode == 0, again.stdout + again.stderr
    assert table_hashes(graph_run.workspace) == before
    reports = [
        json.loads(path.read_text())
        for path in (graph_run.workspace.stats / "stages").rglob("*.json")
    ]
    assert len(reports) >= 17
    kept = again.stderr.count("nothing new, kept")
    started = again.stderr.count(": started")
    assert kept >= 13
    # Stages that hold a ledger of their own start, look, and compute nothing.
    assert started == again.stderr.count(" 0 computed")


def test_the_partitions_of_the_tables_are_the_corpora(graph_run):
    partitions = list_partitions(graph_run.workspace, TABLES["images"])
    assert partitions == ["caf/shard-0000", "caf/shard-0001", "ffhq_aging"]
