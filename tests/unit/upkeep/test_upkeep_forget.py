"""Forgetting images and people: nothing of them is left, and everything else is as it was."""

import json
import shutil
import sqlite3
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from forgotten_workspace import (
    ANN,
    BOB,
    CARL,
    FFHQ,
    FIRST,
    PARTITIONS,
    RUN,
    SECOND,
    VERSION,
    contents,
    do,
    draw,
    id_of,
    make_config,
    make_workspace,
    read_all,
    traces,
    write_shard,
)

from agetf_pipeline.captions.cache import open_embeddings
from agetf_pipeline.cli import main
from agetf_pipeline.commands.forget import lines_of_report
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.hashing import hash_file, read_checksums
from agetf_pipeline.core.locks import shared_lock
from agetf_pipeline.core.work import FORGETTING_LOCK
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.forgotten import read_forgotten, unfinished
from agetf_pipeline.data.schemas import IMAGES, PREDICTIONS, QUARANTINE, TABLES
from agetf_pipeline.data.tables import list_partitions, read_table
from agetf_pipeline.registry.tracking import connected, experiment_id, tracking_uri_of
from agetf_pipeline.registry.trained_on import log_trained_on, versions_trained_on
from agetf_pipeline.registry.versions import create_version, ensure_model
from agetf_pipeline.upkeep.forget import forget

EXPECTED = (
    "data/forgotten.json",
    "data/tables/quarantine/",
    "stats/quarantine/",
    "data/raw/",
    "models/age_transformer/run/weights.trained_on.parquet",
)
"""Where a hash or a name stays: the register, the rows that say so, originals, lists of models."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("made") / "w").root


@pytest.fixture
def workspace(made, tmp_path) -> Workspace:
    shutil.copytree(made, tmp_path / "w")
    return Workspace(tmp_path / "w")


def rows_of(workspace: Workspace) -> dict[str, list[dict]]:
    """Return all rows of all tables but quarantine."""
    return {
        f"{spec.name}/{partition}": read_table(workspace, spec, [partition]).to_dicts()
        for spec in TABLES.values()
        if spec is not QUARANTINE
        for partition in list_partitions(workspace, spec)
    }


def unexpected(found: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: words for name, words in found.items() if not name.startswith(EXPECTED)}


def test_an_image_goes_from_everything_and_the_rest_stays(workspace):
    image_id = id_of(workspace, FIRST, "ann-1.png")
    before, words = rows_of(workspace), [image_id, "data/raw/caf/first/ann-1.png"]
    assert len(unexpected(traces(workspace.root, words))) > 15
    report = do(workspace, image_id[:12])
    assert report.left == []
    assert unexpected(traces(workspace.root, words)) == {}
    after = rows_of(workspace)
    assert after == {
        name: [row for row in rows if row["image_id"] != image_id] for name, rows in before.items()
    }
    for name in before:
        schema = pq.read_schema(workspace.tables / f"{name}.parquet")
        assert schema.equals(TABLES[name.partition("/")[0]].schema)
    # The other name of the same bytes is forgotten with it; Ann's other pictures are not.
    rows = read_table(workspace, QUARANTINE).select("path", "reason", "duplicate_of").sort("path")
    assert rows.rows() == [
        ("data/raw/caf/first/ann-1.png", "forgotten", None),
        ("data/raw/caf/second/again.png", "forgotten", None),
    ]
    (entry,) = read_forgotten(workspace).entries
    assert entry.done_at is not None
    assert entry.image_ids == (image_id,)
    assert entry.num_rows > 10
    assert entry.num_files > 10


def test_a_person_goes_with_all_pictures_in_all_shards(workspace):
    ids = [id_of(workspace, FIRST, f"ann-{n}.png") for n in (1, 2)]
    ids.append(id_of(workspace, SECOND, "ann-3.png"))
    do(workspace, ANN, subjects=True)
    assert unexpected(traces(workspace.root, [ANN, *ids, "ann-2.png"])) == {}
    assert set(read_table(workspace, IMAGES)["subject"]) == {BOB, CARL, None}
    write_shard(workspace, "third", {"ann-4.png": (20, ANN)})
    read_all(workspace)
    from agetf_pipeline.stages import ingest

    ingest.run(make_config(workspace.root), workspace, "caf/third")
    assert set(read_table(workspace, IMAGES)["subject"]) == {BOB, CARL, None}


def test_a_person_goes_from_one_shard_alone(workspace):
    do(workspace, ANN, subjects=True, shards=["second"])
    rows = read_table(workspace, IMAGES).filter(pl.col("subject") == ANN)
    assert rows["raw_name"].to_list() == ["ann-2.png"]  # ann-1 has the bytes of second/again.png
    read_all(workspace)
    assert read_table(workspace, IMAGES).filter(pl.col("subject") == ANN).height == 1


def test_the_next_ingest_says_the_same_and_ingest_alone_runs_again(workspace):
    do(workspace, ANN, subjects=True)
    before = contents(workspace.root)
    read_all(workspace)
    after = contents(workspace.root)
    changed = {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)}
    changed -= {"data/.state/ingest/held.sqlite"}  # takes in the tables that lost rows
    assert changed == {f"stats/stages/ingest/{partition}.json" for partition in (FIRST, SECOND)}


def test_by_path_by_copy_and_by_a_file_from_elsewhere(workspace, tmp_path):
    for name, what in (
        ("bob.png", "data/raw/caf/first/bob.png"),
        ("ann-2.png", str(workspace.raw_caf / "first" / "ann-2.png")),
    ):
        image_id = id_of(workspace, FIRST, name)
        assert do(workspace, what).image_ids == {image_id}
    image_id = id_of(workspace, SECOND, "carl.png")
    enhanced = workspace.processed / "caf_enhanced" / "second" / f"{image_id}.png"
    assert do(workspace, str(enhanced)).image_ids == {image_id}
    assert not enhanced.exists()
    copy = shutil.copy(workspace.raw_ffhq / "00000" / "00006.png", tmp_path / "sent.png")
    assert do(workspace, str(copy)).image_ids == {hash_file(Path(copy))}
    assert read_table(workspace, IMAGES, [FFHQ]).height == 1


def test_what_is_not_here_can_be_kept_out(workspace):
    future = draw(workspace.root.parent / "future.png", 77)
    report = do(workspace, hash_file(future))
    assert "is in no table: recorded" in report.messages[0]
    assert report.actions == []
    shutil.copy(future, workspace.raw_ffhq / "00000" / "00099.png")
    read_all(workspace)
    assert id_of(workspace, FFHQ, "00006.png")
    reasons = read_table(workspace, QUARANTINE, [FFHQ]).select("path", "reason").rows()
    assert reasons == [("data/raw/ffhq_aging/00000/00099.png", "forgotten")]


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("0123456789ab", {}, "none that begins with 0123456789ab"),
        ("no/such/file.png", {}, "no path of the tables and no file"),
        ("Nobody", {"subjects": True}, "Expected a subject 'Nobody'"),
        (BOB, {"subjects": True, "shards": ["second"]}, "manifests of second"),
    ],
)
def test_what_is_unknown_changes_nothing(workspace, what, options, message):
    before = contents(workspace.root)
    with pytest.raises(DataError, match=message):
        do(workspace, what, **options)
    assert contents(workspace.root) == before | {f"data/.state/locks/{FORGETTING_LOCK}": ANY_EMPTY}


ANY_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_ambiguous_digits_are_refused(workspace):
    first = read_table(workspace, IMAGES, [FFHQ])
    twins = first.with_columns(image_id=pl.lit("ab" * 6) + pl.col("image_id").str.slice(12))
    from agetf_pipeline.data.tables import write_table

    write_table(workspace, IMAGES, FFHQ, twins)
    with pytest.raises(DataError, match="begins 2: "):
        do(workspace, "ab" * 6)


def test_a_dry_run_says_all_of_it_and_changes_nothing(workspace):
    before = contents(workspace.root)
    said = "\n".join(lines_of_report(do(workspace, ANN, subjects=True, dry_run=True), workspace))
    assert contents(workspace.root) == before
    report = do(workspace, ANN, subjects=True)
    for action in report.actions:
        assert workspace.relative(action.path) in said


def test_pictures_of_many_go_where_it_may_be_in_them_and_plots_stay(workspace):
    do(workspace, id_of(workspace, SECOND, "carl.png"))
    gone = [
        *(f"{RUN}/{name}" for name in ("grid.png", "cases.png", "train_samples.png")),
        f"{RUN}/report.html",
        "mlruns/0a/artifacts/report/grid.png",
        "stats/captions/caf/second/sheet.jpg",
        "stats/captions/caf/second/page.html",
        "data/processed/caf_enhanced/second/contact_sheet.jpg",
        "data/.state/cache/faces_64/0.npy",
    ]
    kept = [
        f"{RUN}/loss_curves.png",
        "mlruns/0a/artifacts/report/loss_curves.png",
        "stats/captions/caf/first/sheet.jpg",
        "data/processed/caf_enhanced/first/contact_sheet.jpg",
        "stats/captions/caf/second/examples.csv",
    ]
    assert [name for name in gone if (workspace.root / name).exists()] == []
    assert [name for name in kept if not (workspace.root / name).exists()] == []


def test_rows_left_without_their_image_are_found_and_pictures_with_them(workspace):
    """The file was taken away and ingest ran, but nothing after it."""
    image_id = id_of(workspace, FFHQ, "00006.png")
    (workspace.raw_ffhq / "00000" / "00006.png").unlink()
    read_all(workspace)
    assert image_id not in read_table(workspace, IMAGES)["image_id"]
    assert image_id in read_table(workspace, PREDICTIONS)["image_id"]
    do(workspace, image_id)
    assert unexpected(traces(workspace.root, [image_id])) == {}
    assert not (workspace.root / RUN / "grid.png").exists()
    assert not (workspace.stats / "captions" / FFHQ / "sheet.jpg").exists()


def test_other_rows_of_lists_keep_their_text(workspace):
    path = workspace.stats / "captions" / FIRST / "examples.csv"
    image_id, before = id_of(workspace, FIRST, "ann-1.png"), path.read_text()
    do(workspace, image_id)
    assert path.read_text() == before.replace(f'{image_id},"A face,\nin two lines"\n', "")
    record = json.loads((workspace.stats / "quality" / "images.json").read_text())
    (expectation,) = record["expectations"]
    assert len(expectation["examples"]) == read_table(workspace, IMAGES).height
    assert expectation["num_broken"] == 2
    metrics = json.loads((workspace.root / RUN / "metrics.json").read_text())
    assert metrics["mae"] == 4.5
    assert image_id not in metrics["worst"]


def test_embeddings_are_mapped_again_without_it(workspace):
    image_id = id_of(workspace, FIRST, "bob.png")
    do(workspace, image_id)
    store = open_embeddings(workspace, VERSION)
    assert image_id not in store
    assert len(store) == read_table(workspace, IMAGES).height


def test_checksums_of_a_release_stay_right(workspace):
    do(workspace, id_of(workspace, FIRST, "bob.png"))
    folder = workspace.root / "outputs" / "release" / "0.1.0"
    listed = read_checksums(folder / "checksums.sha256")
    assert listed == {name: hash_file(folder / name) for name in listed}
    croissant = json.loads((folder / "croissant.json").read_text())
    assert croissant["sha256"] == listed["identity_splits.csv"]


def test_originals_stay_unless_asked_for_and_then_those_of_the_workspace_go(workspace, tmp_path):
    report = do(workspace, BOB, subjects=True)
    bob = workspace.raw_caf / "first" / "bob.png"
    assert report.originals == {bob: False}
    assert bob.is_file()
    report = do(workspace, BOB, subjects=True, delete_originals=True)
    assert report.originals == {bob: True}
    assert not bob.exists()
    rows = read_table(workspace, QUARANTINE, [FIRST]).select("path", "reason", "image_id").rows()
    assert rows[-1] == ("data/raw/caf/first/bob.png", "forgotten", None)
    before = contents(workspace.root / "data" / "tables")
    read_all(workspace)
    assert contents(workspace.root / "data" / "tables") == before


def test_originals_of_others_are_never_deleted(workspace, tmp_path):
    """A corpus outside the workspace is somebody else's folder."""
    elsewhere = workspace.raw_ffhq.rename(tmp_path / "faces")
    config = make_config(workspace.root, ffhq_aging={"path": elsewhere})
    read_all(workspace, config)
    image_id = id_of(workspace, FFHQ, "00006.png")
    report = forget(config, workspace, [image_id], delete_originals=True)
    assert list(report.originals.values()) == [False]
    assert (elsewhere / "00000" / "00006.png").is_file()
    assert read_table(workspace, QUARANTINE, [FFHQ])["reason"].to_list() == ["forgotten"]


def test_a_stage_that_runs_is_not_raced(workspace):
    before = contents(workspace.root)
    with (
        shared_lock(workspace.state / "locks" / FORGETTING_LOCK),
        pytest.raises(StageError, match="every stage that runs"),
    ):
        do(workspace, ANN, subjects=True)
    assert contents(workspace.root) == before | {f"data/.state/locks/{FORGETTING_LOCK}": ANY_EMPTY}


def test_networks_and_registered_versions_that_learned_from_it_are_named(workspace):
    image_id = id_of(workspace, FIRST, "bob.png")
    uri = tracking_uri_of(workspace)
    with connected(uri) as client:
        ensure_model(client, "age-transformer", "A test.")
        run_id = client.create_run(experiment_id(client, "e", workspace)).info.run_id
        weights = workspace.models / "age_transformer" / "run" / "weights"
        lists = {"age_transformer": weights.with_name("weights.trained_on.parquet")}
        log_trained_on(client, run_id, lists | {"absent": workspace.root / "absent"})
        for run in (run_id, ""):
            create_version(client, "age-transformer", f"file://{workspace.root}/x", run, {})
        client.set_registered_model_alias("age-transformer", "champion", "1")
    report = do(workspace, image_id)
    assert [(model.name, model.num_asked) for model in report.models] == [
        ("models/age_transformer/run/weights", 1)
    ]
    (version,) = report.versions
    assert (version.model, version.version, version.aliases) == (
        "age-transformer", "1", ("champion",),
    )  # fmt: skip
    assert version.part == "age_transformer"
    assert version.num_asked == 1
    said = "\n".join(lines_of_report(report, workspace))
    assert "age-transformer version 1 [champion]" in said
    assert "age-transformer 2" in said  # says nothing of what it learned from
    assert versions_trained_on(uri, {"0" * 64})[0] == []
    assert report.left == []


def test_databases_of_others_are_looked_into_and_left_alone(workspace, tmp_path):
    """Dagster keeps the first 16 digits of hashes, and previews, in its event log."""
    image_id = id_of(workspace, FIRST, "bob.png")
    home = tmp_path / "home"
    log = home / "history" / "runs" / "0.db"
    log.parent.mkdir(parents=True)
    with sqlite3.connect(log) as connection:
        connection.execute("CREATE TABLE event_logs (event TEXT)")
        connection.execute("INSERT INTO event_logs VALUES (?)", (f"{image_id[:16]}...",))
    connection.close()
    before = log.read_bytes()
    (finding,) = do(workspace, image_id, dagster_home=home).left
    assert (finding.severity, finding.check) == ("warning", "forget/database")
    assert log.read_bytes() == before
    assert not unfinished(read_forgotten(workspace))


def test_a_new_picture_of_a_run_is_taken_for_one_of_faces(workspace):
    for name in ("new_page.png", "moe_new.png"):
        draw(workspace.root / RUN / name, 5)
    do(workspace, id_of(workspace, FIRST, "bob.png"))
    assert not (workspace.root / RUN / "new_page.png").exists()
    assert (workspace.root / RUN / "moe_new.png").exists()


def test_the_command(workspace, capsys):
    config = workspace.root / "config.yaml"
    config.write_text(f"workspace: {{root: {workspace.root}}}\n")
    options = ["--config", str(config), "--quiet"]
    assert main(["forget", *options]) == 1
    assert "Expected what to forget" in capsys.readouterr().err
    assert main(["forget", "x.png", "--shard", "first", *options]) == 1
    assert main(["forget", "--subject", ANN, "--dry-run", *options]) == 0
    assert not read_forgotten(workspace).entries
    assert main(["forget", "--subject", ANN, "--shard", "first", *options]) == 0
    said = capsys.readouterr().out
    assert "looked through again: nothing of it is left" in said
    assert "originals that stay" in said
    assert not unfinished(read_forgotten(workspace))
    assert [p for p in PARTITIONS if ANN in read_table(workspace, IMAGES, [p])["subject"]] == [
        SECOND
    ]
