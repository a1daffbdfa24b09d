"""Forgetting deletes what was asked for and nothing else; nothing that is broken keeps it away."""

import fcntl
import os
import shutil
import threading
from pathlib import Path

import polars as pl
import pytest
from forgotten_workspace import (
    ANN,
    BOB,
    FIRST,
    contents,
    do,
    draw,
    id_of,
    make_workspace,
    write_shard,
)

from agetf_pipeline.commands.forget import lines_of_report
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.work import FORGETTING_LOCK
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.forgotten import Entry, begin, read_forgotten, unfinished, with_key
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import read_table


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("made") / "w").root


@pytest.fixture
def workspace(made, tmp_path) -> Workspace:
    shutil.copytree(made, tmp_path / "w")
    return Workspace(tmp_path / "w")


def interrupted(workspace: Workspace, image_id: str, deletes: bool) -> None:
    """Leave a request as a kill right after it was recorded leaves it."""
    register = with_key(read_forgotten(workspace))
    begin(workspace, Entry(image_ids=(image_id,), deletes_originals=deletes), register)


@pytest.mark.parametrize("by_subject", [False, True])
def test_a_picture_that_took_the_name_of_another_is_never_deleted(workspace, by_subject):
    file = workspace.raw_caf / "first" / "bob.png"
    old = id_of(workspace, FIRST, "bob.png")
    new = hash_file(draw(file, 300))
    if by_subject:  # the manifest says that it is somebody else's by now
        manifest = file.with_name("manifest.csv")
        manifest.write_text(manifest.read_text().replace(f",{BOB},", ",Dora,"))
    report = do(workspace, BOB if by_subject else old, subjects=by_subject, delete_originals=True)
    assert hash_file(file) == new
    assert (report.originals, report.replaced) == ({}, [file])
    assert "another picture has taken the name" in "\n".join(lines_of_report(report, workspace))
    assert new not in read_forgotten(workspace).image_ids
    assert report.left == []


def test_a_picture_that_a_manifest_lists_as_theirs_now_is_deleted(workspace):
    """A person's photograph was replaced by another of theirs: both are theirs."""
    file = workspace.raw_caf / "first" / "bob.png"
    old, new = id_of(workspace, FIRST, "bob.png"), hash_file(draw(file, 300))
    do(workspace, BOB, subjects=True, delete_originals=True)
    assert not file.exists()
    assert {old, new} <= read_forgotten(workspace).image_ids


def test_an_interrupted_request_that_deletes_makes_no_other_delete(workspace):
    bob, ann = (workspace.raw_caf / "first" / name for name in ("bob.png", "ann-2.png"))
    interrupted(workspace, id_of(workspace, FIRST, "bob.png"), deletes=True)
    do(workspace, id_of(workspace, FIRST, "ann-2.png"))
    assert (bob.exists(), ann.exists()) == (False, True)
    entries = read_forgotten(workspace).entries
    assert [entry.deletes_originals for entry in entries] == [True, False]
    assert [len(entry.image_ids) for entry in entries] == [1, 1]
    assert all(entry.done_at for entry in entries)


def test_a_request_that_deletes_does_not_delete_for_an_interrupted_one(workspace):
    bob, ann = (workspace.raw_caf / "first" / name for name in ("bob.png", "ann-2.png"))
    interrupted(workspace, id_of(workspace, FIRST, "bob.png"), deletes=False)
    report = do(workspace, id_of(workspace, FIRST, "ann-2.png"), delete_originals=True)
    assert (bob.exists(), ann.exists()) == (True, False)
    assert report.originals == {bob: False, ann: True}


def test_an_interrupted_person_loses_pictures_that_were_never_ingested(workspace):
    folder = write_shard(workspace, "third", {"ann-9.png": (90, ANN)})
    image_id = hash_file(folder / "ann-9.png")
    register = with_key(read_forgotten(workspace))
    people = (register.subject_hash(ANN, "caf"),)
    begin(workspace, Entry((image_id,), people, deletes_originals=True), register)
    do(workspace)
    assert not (folder / "ann-9.png").exists()


def test_by_path_what_lies_there_now_is_forgotten_with_what_lay_there(workspace):
    """A photograph was opened and saved again: other bytes, the same picture."""
    file = workspace.raw_caf / "first" / "bob.png"
    old, new = id_of(workspace, FIRST, "bob.png"), hash_file(draw(file, 300))
    report = do(workspace, "data/raw/caf/first/bob.png", delete_originals=True)
    assert report.image_ids == {old, new}
    assert "holds another picture than when it was read" in report.messages[0]
    assert read_forgotten(workspace).image_ids == {old, new}
    assert not file.exists()


def test_a_path_that_no_table_knows_is_deleted_where_that_is_asked(workspace):
    file = draw(workspace.raw_caf / "first" / "unread.png", 301)
    assert do(workspace, str(file), delete_originals=True).originals == {file: True}
    assert not file.exists()


def test_a_path_that_means_two_photographs_is_refused(workspace, tmp_path, monkeypatch):
    name = "data/raw/caf/first/bob.png"
    other = draw(tmp_path / "here" / name, 302)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match="found two"):
        do(workspace, name)
    (workspace.root / name).unlink()  # the table still knows which one lay there
    with pytest.raises(DataError, match="found two"):
        do(workspace, name)
    assert not read_forgotten(workspace).entries
    assert do(workspace, str(other)).image_ids == {hash_file(other)}


def test_one_broken_manifest_stops_nobody(workspace):
    folder = write_shard(workspace, "broken", {"x.png": (400, "Xenia")})
    (folder / "manifest.csv").write_text("no,such,columns\n")
    (finding,) = do(workspace, ANN, subjects=True).left
    assert (finding.severity, finding.where) == ("warning", "data/raw/caf/broken/manifest.csv")
    assert ANN not in read_table(workspace, IMAGES)["subject"]
    assert not unfinished(read_forgotten(workspace))
    # Where originals are to go, it is not done before that shard was looked at.
    (finding,) = do(workspace, BOB, subjects=True, delete_originals=True).left
    assert finding.severity == "error"
    assert not (workspace.raw_caf / "first" / "bob.png").exists()
    (folder / "manifest.csv").write_text(f"path,subject,age\nx.png,{BOB},3\n")
    write_shard(workspace, "broken", {"x.png": (400, BOB)})
    report = do(workspace, BOB, subjects=True, delete_originals=True)
    assert report.left == []
    assert not (folder / "x.png").exists()


def test_a_registry_that_is_away_keeps_nobody(workspace):
    image_id = id_of(workspace, FIRST, "bob.png")
    (workspace.root / "mlflow.db").write_bytes(b"no database at all")
    report = do(workspace, image_id)
    assert any("Not every network could be asked" in message for message in report.messages)
    assert image_id not in read_table(workspace, IMAGES)["image_id"]
    assert not unfinished(read_forgotten(workspace))


def test_a_mistyped_workspace_is_refused_and_not_made(tmp_path):
    for root in (tmp_path / "absent", tmp_path):
        with pytest.raises(DataError, match="Expected a workspace at"):
            do(Workspace(root), "ab" * 32)
    assert contents(tmp_path) == {}


def test_an_instant_of_the_lock_is_waited_for(workspace):
    """`agetf verify` asks whether a stage runs by holding the lock for an instant."""
    path = workspace.state / "locks" / FORGETTING_LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    timer = threading.Timer(0.2, os.close, [descriptor])
    timer.start()
    report = do(workspace, id_of(workspace, FIRST, "bob.png"), dry_run=True)
    timer.join()
    assert report.num_images == 1


def test_the_same_name_in_another_shard_keeps_its_rows_everywhere(workspace):
    """Two people of one name: a request for one shard is about one of them."""
    table = workspace.tables / "training_manifest" / "all.parquet"
    before = pl.read_parquet(table).filter(pl.col("identity") == f"caf:{ANN}")
    goes = set(before.filter(pl.col("partition") == "caf/second")["image_id"])
    do(workspace, ANN, subjects=True, shards=["second"])
    after = pl.read_parquet(table).filter(pl.col("identity") == f"caf:{ANN}")
    # ann-1 has the bytes of second/again.png: the same image, forgotten with it.
    same = id_of_content(workspace, "again.png")
    assert set(after["image_id"]) == set(before["image_id"]) - goes - {same}
    assert after.height == 1


def id_of_content(workspace: Workspace, name: str) -> str:
    return hash_file(workspace.raw_caf / "second" / name)
