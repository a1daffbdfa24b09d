"""One file, network, release or record broken: `agetf verify` names that, and only it."""

import os
import shutil
import sqlite3
import struct

import numpy as np
import polars as pl
import pytest
from PIL import Image
from verified_workspace import CAF, FFHQ, change, copied, ids_of, make_config, tree

from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.forgotten import Entry, Forgotten, begin, finish
from agetf_pipeline.data.schemas import CAPTIONS, IMAGES
from agetf_pipeline.data.tables import read_table, table_path
from agetf_pipeline.upkeep.verify import verify_workspace
from agetf_pipeline.upkeep.verify_checks import CHECKS

CHANGED = "files/output_changed"
STRANGER = "0123456789abcdef" * 4
DAMAGES = {}


def damage(function):
    """Register a case: it breaks one thing and returns what is to be found: (check, where)."""
    DAMAGES[function.__name__] = function
    return function


def put(workspace, name, content=b"?"):
    path = workspace.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@damage
def an_orphaned_crop(workspace):
    name = f"data/processed/faces/ffhq_aging/{STRANGER}.png"
    put(workspace, name)
    return {("files/orphan", name)}


@damage
def an_orphaned_enhanced_picture(workspace):
    name = f"data/processed/caf_enhanced/one/{STRANGER}.png"
    put(workspace, name)
    return {("files/orphan", name)}


@damage
def an_orphaned_token_grid(workspace):
    name = f"data/cache/captions/token_grids/old/01/{STRANGER}.npy"
    put(workspace, name)
    return {("files/orphan", name)}


@damage
def a_foreign_file_among_pictures(workspace):
    name = "data/processed/caf_enhanced/one/notes.txt"
    put(workspace, name)
    return {("files/foreign", name)}


@damage
def pictures_of_a_shard_that_is_gone(workspace):
    put(workspace, f"data/processed/caf_enhanced/two/{STRANGER}.png")
    return {("files/stale_partition", "data/processed/caf_enhanced/two")}


@damage
def a_report_of_a_shard_that_is_gone(workspace):
    source = workspace.stats / "stages" / "predict" / "caf" / "one.json"
    content = source.read_bytes()
    put(workspace, "stats/stages/predict/caf/two.json", content)
    return {("files/stale_partition", "stats/stages/predict/caf/two.json")}


@damage
def a_leftover_of_a_killed_write(workspace):
    put(workspace, "data/tables/labels/.tmp-abcdef.parquet")
    return {("files/temporary", "data/tables/labels/.tmp-abcdef.parquet")}


@damage
def a_leftover_of_a_killed_release(workspace):
    put(workspace, "outputs/release/.0.1.0.new/card.md")
    return {("files/temporary", "outputs/release/.0.1.0.new")}


@damage
def unfinished_parts(workspace):
    path = workspace.state / "parts" / "labels" / CAF / "0.parquet"
    path.parent.mkdir(parents=True)
    shutil.copyfile(table_path(workspace, read_spec("labels"), CAF), path)
    return {("files/unfinished", "data/.state/parts/labels/caf/one/0.parquet")}


def read_spec(name):
    from agetf_pipeline.data.schemas import TABLES

    return TABLES[name]


@damage
def a_link_among_derived_files(workspace):
    (workspace.stats / "link.csv").symlink_to("/etc/hostname")
    return {("files/symlink", "stats/link.csv")}


@damage
def a_pipe_among_derived_files(workspace):
    os.mkfifo(workspace.stats / "pipe")
    return {("files/not_a_file", "stats/pipe")}


@damage
def a_damaged_report(workspace):
    put(workspace, "stats/stages/predict/caf/one.json", b'{"stage": "predict", ')
    return {("files/report", "stats/stages/predict/caf/one.json")}


@damage
def a_report_of_another_form(workspace):
    put(workspace, "stats/stages/filter/caf/one.json", b'{"stage": "filter", "what": 1}')
    return {("files/report", "stats/stages/filter/caf/one.json")}


@damage
def a_deleted_output(workspace):
    (workspace.stats / "quarantine" / "caf" / "one.csv").unlink()
    return {("files/output_missing", "stats/quarantine/caf/one.csv")}


@damage
def a_changed_output(workspace):
    put(workspace, "stats/quarantine/ffhq_aging.csv", b"changed")
    return {(CHANGED, "stats/quarantine/ffhq_aging.csv")}


WEIGHTS = "models/enhance/ddcolor.safetensors"


@damage
def a_flipped_weight(workspace):
    path = workspace.root / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data)
    return {("models/changed", WEIGHTS)}


@damage
def truncated_weights(workspace):
    path = workspace.root / WEIGHTS
    path.write_bytes(path.read_bytes()[:-8])
    return {("models/unreadable", WEIGHTS), ("models/changed", WEIGHTS)}


@damage
def weights_with_a_tail(workspace):
    with (workspace.root / WEIGHTS).open("ab") as stream:
        stream.write(b"tail")
    return {("models/unreadable", WEIGHTS), ("models/changed", WEIGHTS)}


@damage
def weights_that_are_not_finite(workspace):
    path = workspace.root / WEIGHTS
    data = path.read_bytes()
    path.write_bytes(data[:-4] + struct.pack("<f", float("nan")))
    return {("models/not_finite", WEIGHTS), ("models/changed", WEIGHTS)}


def own_weights(workspace, tensors, card):
    from safetensors.numpy import save_file

    path = workspace.models / "guidance" / "age_regressor.safetensors"
    path.parent.mkdir()
    save_file(tensors, path, metadata={"card": card})
    return "models/guidance/age_regressor.safetensors"


@damage
def weights_without_parameters(workspace):
    return {("models/empty", own_weights(workspace, {}, "{}"))}


@damage
def a_damaged_card(workspace):
    name = own_weights(workspace, {"a": np.ones(3, np.float32)}, "{no json")
    return {("models/card", name)}


CALIBRATION = "models/moe/calibration.json"


@damage
def a_calibration_changed_by_hand(workspace):
    values = read_json(workspace.root / CALIBRATION)
    write_json(workspace.root / CALIBRATION, values | {"interval_level": 0.5})
    return {("models/calibration", CALIBRATION), ("models/changed", CALIBRATION)}


@damage
def a_figure_that_is_no_number(workspace):
    put(workspace, "outputs/experiments/test/metrics.json", b'{"mae_years": NaN}')
    return {("models/json", "outputs/experiments/test/metrics.json")}


CHECKPOINT = "models/age_transformer/test/checkpoints/images-00000064"


@damage
def a_changed_checkpoint(workspace):
    put(workspace, f"{CHECKPOINT}/optimizer.pt", b"other moments")
    return {("models/checkpoint", f"{CHECKPOINT}/optimizer.pt")}


@damage
def a_checkpoint_without_its_networks(workspace):
    (workspace.root / CHECKPOINT / "weights.safetensors").unlink()
    return {("models/checkpoint", f"{CHECKPOINT}/state.json")}


@damage
def a_best_checkpoint_that_is_gone(workspace):
    shutil.rmtree(workspace.root / CHECKPOINT)
    return {("models/checkpoint", "models/age_transformer/test/checkpoints/best.json")}


@damage
def a_damaged_program(workspace):
    put(workspace, "outputs/model.pt2", b"PK\x03\x04 no archive")
    return {("models/program", "outputs/model.pt2")}


@damage
def published_weights_that_changed(workspace):
    put(workspace, "models/checkpoints/given.pth", b"other bytes")
    entry = {"sha256": "0" * 64, "size_bytes": 1, "how": "imported", "checkpoint": "given",
             "mismatch_accepted": False, "recorded_on": "2026-01-01"}  # fmt: skip
    write_json(workspace.models / "checkpoints" / "checksums.json", {"given.pth": entry})
    return {("models/published", "models/checkpoints/given.pth")}


RELEASE = "outputs/release/0.1.0"


@damage
def an_edited_release_file(workspace):
    put(workspace, f"{RELEASE}/DATASET_CARD.md", b"# Other\n")
    return {("models/release", f"{RELEASE}/DATASET_CARD.md"), (CHANGED, RELEASE)}


@damage
def a_file_added_to_a_release(workspace):
    put(workspace, f"{RELEASE}/names.csv")
    return {("models/release", f"{RELEASE}/names.csv"), (CHANGED, RELEASE)}


@damage
def a_file_missing_from_a_release(workspace):
    (workspace.root / RELEASE / "identity_splits.csv").unlink()
    return {("models/release", f"{RELEASE}/identity_splits.csv"), (CHANGED, RELEASE)}


@damage
def a_corrupted_database(workspace):
    path = workspace.root / "mlflow.db"
    data = bytearray(path.read_bytes())
    data[4096:12288] = b"\xff" * 8192  # the second and third page
    path.write_bytes(data)
    return {("state/sqlite", "mlflow.db")}


@damage
def a_database_that_is_none(workspace):
    put(workspace, "data/notes.sqlite", b"no database at all")
    return {("state/sqlite", "data/notes.sqlite")}


@damage
def a_database_of_another_form(workspace):
    (workspace.root / "mlflow.db").unlink()
    with sqlite3.connect(workspace.root / "mlflow.db") as connection:
        connection.execute("CREATE TABLE other (name TEXT)")
    connection.close()
    return {("state/registry", "mlflow.db")}


MODEL = "mlruns/models/m-1/artifacts"


@damage
def a_registered_model_that_is_gone(workspace):
    shutil.rmtree(workspace.root / MODEL)
    return {("state/registered_missing", MODEL)}


@damage
def registered_weights_that_changed(workspace):
    name = f"{MODEL}/artifacts/weights.safetensors"
    put(workspace, name, b"other weights")
    return {("state/registered_changed", name)}


@damage
def a_damaged_ledger_of_shards(workspace):
    put(workspace, "data/.state/shards/caf.json", b"{")
    return {("state/ledger", "data/.state/shards/caf.json")}


@damage
def a_damaged_ledger_of_copies(workspace):
    put(workspace, "data/.state/pull/caf.jsonl", b'["a", 1, "t"]\nnonsense\n["b", 1, "t"]\n')
    return {("state/ledger", "data/.state/pull/caf.jsonl")}


@damage
def a_ledger_that_a_kill_cut_off(workspace):
    put(workspace, "data/.state/pull/caf.jsonl", b'["a", 1, "t"]\n["b", 1')
    return set()


@damage
def a_damaged_record_of_captions(workspace):
    put(workspace, "data/cache/captions/current.json", b"{}")
    return {("state/ledger", "data/cache/captions/current.json")}


def forget(workspace, image_id, done=True):
    register = begin(workspace, Entry(image_ids=(image_id,)), Forgotten())
    if done:
        finish(workspace, register, 1, 1)


@damage
def a_forgotten_image_that_is_there(workspace):
    image_id = ids_of(workspace, FFHQ)[0]
    forget(workspace, image_id)
    tables = ("images", "predictions", "labels", "keep_list", "captions")
    found = {("links/forgotten", f"data/tables/{name}/ffhq_aging.parquet") for name in tables}
    names = [read_table(workspace, IMAGES, [FFHQ])["face_path"][0]]
    names.append(read_table(workspace, CAPTIONS, [FFHQ])["token_grid_path"][0])
    names.append("data/cache/captions/embeddings/ffhq_aging/0123456789ab-1-ffffffffffffffff.arrow")
    names.append("data/.state/ingest/data/tables/examinations/ffhq_aging.parquet")
    found |= {("files/forgotten", name) for name in names}
    return found | {("links/forgotten", "data/tables/training_manifest/all.parquet")}


@damage
def a_copy_of_what_was_forgotten(workspace):
    """Under other names, where no stage reads it, and where MLflow keeps artifacts."""
    picture = Image.fromarray(np.full((9, 9, 3), 7, np.uint8))
    names = ["outputs/face_copy.png", "mlruns/0/run/artifacts/anybody.jpg", "data/processed/a.webp"]
    picture.save(put(workspace, names[0]))
    content = (workspace.root / names[0]).read_bytes()
    for name in names:
        put(workspace, name, content)
    image_id = hash_file(workspace.root / names[0])
    put(workspace, "stats/again.csv", f"image_id,age\n{image_id},3\n{'e' * 64},4\n".encode())
    put(workspace, "outputs/notes.txt", f"Look at {image_id}!".encode())
    put(workspace, "stats/verify.csv", f"where,image_id\nx,{image_id}\n".encode())
    forget(workspace, image_id)
    return {("files/forgotten", name) for name in (*names, "stats/again.csv", "outputs/notes.txt")}


@damage
def forgetting_that_was_interrupted(workspace):
    forget(workspace, "ab12" * 16, done=False)
    return {("state/forgetting_unfinished", workspace.relative(workspace.forgotten))}


@damage
def a_damaged_register_of_the_forgotten(workspace):
    name = workspace.relative(workspace.forgotten)
    put(workspace, name, b"{")
    return {("state/forgotten_register", name)}


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_one_damage_is_found_and_nothing_else(name, tmp_path, tmp_path_factory):
    workspace = copied(tmp_path_factory, tmp_path / "w")
    config = make_config(workspace.root)
    expected = DAMAGES[name](workspace)
    before = tree(workspace.root)
    result = verify_workspace(config, workspace)
    assert {(f.check, f.where) for f in result.findings} == expected
    assert tree(workspace.root) == before, "verifying changed something"
    assert result.is_clean == all(CHECKS[check].severity != "error" for check, _ in expected)


def test_a_database_in_use_is_looked_at_through_a_copy(tmp_path, tmp_path_factory):
    workspace = copied(tmp_path_factory, tmp_path / "w")
    writer = sqlite3.connect(workspace.root / "mlflow.db")
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE more (name TEXT)")
    writer.commit()
    assert (workspace.root / "mlflow.db-wal").stat().st_size
    before = tree(workspace.root)
    result = verify_workspace(make_config(workspace.root), workspace, areas=("state",))
    assert not result.findings
    assert tree(workspace.root) == before
    writer.close()


def test_a_registry_as_mlflow_writes_it_is_read(tmp_path):
    """MLflow's own tables, so that another form of them in another release is noticed here."""
    from small_registry import make_registry

    root = tmp_path / "w"
    make_registry(root, 1)
    (root / "data").mkdir(exist_ok=True)
    result = verify_workspace(make_config(root), Workspace(root), areas=("state",))
    found = [(f.check, f.where, f.expected) for f in result.findings]
    assert found == [("state/registered_missing", "absent", "age-transformer version 1")]


def test_forgotten_rows_in_quarantine_are_as_they_should_be(tmp_path, tmp_path_factory):
    workspace = copied(tmp_path_factory, tmp_path / "w")
    frame = read_table(workspace, read_spec("quarantine"), [CAF])
    refused = frame.filter(pl.col("reason") == "not_an_image")
    forget(workspace, refused["image_id"][0])
    reason = pl.when(pl.col("reason") == "not_an_image").then(pl.lit("forgotten"))
    frame = frame.with_columns(reason=reason.otherwise("reason"))
    result = verify_workspace(make_config(workspace.root), workspace, areas=("links",))
    assert [f.check for f in result.findings] == ["links/forgotten"]
    change(workspace, read_spec("quarantine"), CAF, frame)
    assert not verify_workspace(make_config(workspace.root), workspace, areas=("links",)).findings
