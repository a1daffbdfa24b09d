"""The register of what was forgotten, and everything that must not bring it back."""

import hashlib
import os
import threading
import time

import polars as pl
import pytest
from forgotten_workspace import (
    ANN,
    BOB,
    FIRST,
    SECOND,
    draw,
    id_of,
    make_config,
    read_all,
    write_shard,
)

from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.work import FORGETTING_LOCK, StageReport, run_once
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data import forgotten
from agetf_pipeline.data.forgotten import EVERY_SHARD, Entry, Forgotten, read_forgotten
from agetf_pipeline.data.quarantine import FORGOTTEN
from agetf_pipeline.data.remote import pull
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.data.shards import scan_shards
from agetf_pipeline.data.tables import read_table
from agetf_pipeline.data.trained_on import (
    models_trained_on,
    read_trained_on,
    trained_on_path,
    write_trained_on,
)
from agetf_pipeline.stages import ingest


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    made = Workspace(tmp_path / "w")
    write_shard(made, "first", {"ann.png": (1, ANN), "bob.png": (2, BOB)})
    return made


def register(workspace: Workspace, **what: object) -> Forgotten:
    """Record something as the command does; names are hashed with the workspace's key."""
    known = forgotten.with_key(read_forgotten(workspace))
    people = tuple(known.subject_hash(*person) for person in what.pop("people", ()))  # type: ignore[misc]
    paths = forgotten.hashes_of(known, what.pop("files", ()))  # type: ignore[arg-type]
    entry = Entry(subjects=people, paths=paths, **what)  # type: ignore[arg-type]
    return forgotten.begin(workspace, entry, known)


def reasons(workspace: Workspace, partition: str = FIRST) -> dict[str, str]:
    rows = read_table(workspace, QUARANTINE, [partition]).select("path", "reason").iter_rows()
    return {path.rsplit("/", 1)[-1]: reason for path, reason in rows}


def run(workspace: Workspace, partition: str = FIRST) -> StageReport:
    return ingest.run(make_config(workspace.root), workspace, partition)


def test_the_register_names_nobody(workspace):
    path = "data/raw/caf/first/ann.png"
    register(workspace, people=[(ANN, EVERY_SHARD)], files=[path])
    text = workspace.forgotten.read_text()
    guesses = [
        hashlib.sha256(word.encode()).hexdigest()
        for word in (ANN, path, f"subject\0{EVERY_SHARD}\0{ANN}", f"path\0{path}")
    ]
    assert not [word for word in (ANN, "ann.png", *guesses) if word in text]
    known = read_forgotten(workspace)
    assert known.has_subject(ANN, FIRST)
    assert known.has_subject(ANN, "caf/of-tomorrow")
    assert not known.has_subject("Ann", FIRST)
    other = register(Workspace(workspace.root / "other"), people=[(ANN, EVERY_SHARD)])
    assert not set(known.entries[0].subjects) & set(other.entries[0].subjects)


def test_a_damaged_register_lets_nothing_in(workspace):
    register(workspace, people=[(ANN, EVERY_SHARD)])
    workspace.forgotten.write_text(workspace.forgotten.read_text()[:-40])
    with pytest.raises(DataError, match="Restore it from a backup"):
        run(workspace)
    assert not (workspace.tables / "images").exists()


def test_a_forgotten_content_stays_out_under_any_name(workspace):
    run(workspace)
    image_id = id_of(workspace, FIRST, "ann.png")
    register(workspace, image_ids=(image_id,))
    report = run(workspace)
    assert reasons(workspace) == {"ann.png": FORGOTTEN}
    assert report.counts["inputs"] == report.counts["images"] + report.counts["quarantined"]
    write_shard(workspace, "second", {"renamed.png": (1, "Somebody"), "new.png": (9, BOB)})
    run(workspace, SECOND)
    assert reasons(workspace, SECOND) == {"renamed.png": FORGOTTEN}
    assert image_id not in read_table(workspace, IMAGES)["image_id"]


def test_a_forgotten_person_stays_out_of_new_shards_and_is_no_failure(workspace):
    register(workspace, people=[(ANN, EVERY_SHARD)])
    run(workspace)  # max_failed_fraction is 0 here
    write_shard(workspace, "second", {"new.png": (8, ANN), "other.png": (9, BOB)})
    run(workspace, SECOND)
    assert reasons(workspace) == {"ann.png": FORGOTTEN}
    assert reasons(workspace, SECOND) == {"new.png": FORGOTTEN}
    assert set(read_table(workspace, IMAGES)["subject"]) == {BOB}
    for name in ("data/tables/quarantine/caf/first.parquet", "stats/quarantine/caf/first.csv"):
        assert ANN.encode() not in (workspace.root / name).read_bytes()


def test_a_person_can_be_forgotten_in_one_shard_alone(workspace):
    write_shard(workspace, "second", {"ann.png": (8, ANN)})
    register(workspace, people=[(ANN, SECOND)])
    run(workspace)
    run(workspace, SECOND)
    assert reasons(workspace) == {}
    assert reasons(workspace, SECOND) == {"ann.png": FORGOTTEN}


def test_rows_that_disagree_about_a_forgotten_person_do_not_name_them(workspace):
    manifest = workspace.raw_caf / "first" / "manifest.csv"
    manifest.write_text(manifest.read_text() + f"bob.png,{ANN},31\n")
    register(workspace, people=[(ANN, EVERY_SHARD)])
    run(workspace)
    assert reasons(workspace) == {"ann.png": FORGOTTEN, "bob.png": FORGOTTEN}
    details = read_table(workspace, QUARANTINE)["detail"]
    assert not details.str.contains(ANN, literal=True).any()


def test_a_deleted_file_that_a_manifest_lists_is_not_missing(workspace):
    run(workspace)
    (workspace.raw_caf / "first" / "ann.png").unlink()
    config = make_config(workspace.root)
    (shard,) = scan_shards(config, workspace)
    assert shard.state == "incomplete"
    register(workspace, files=["data/raw/caf/first/ann.png"])
    (shard,) = scan_shards(config, workspace)
    assert (shard.state, shard.num_files) == ("complete", 1)
    report = run(workspace)
    assert reasons(workspace) == {"ann.png": FORGOTTEN}
    assert report.counts["inputs"] == 2
    # Another picture of that name is another picture.
    draw(workspace.raw_caf / "first" / "ann.png", 30)
    assert run(workspace).counts["images"] == 2


@pytest.mark.parametrize("listed", ["./x/é.png", "x\\é.png", "x/e\u0301.png", "x/é.png"])
def test_a_listed_path_is_known_in_every_spelling(tmp_path, listed):
    known = register(Workspace(tmp_path), files=["data/raw/caf/first/x/é.png"])
    assert known.has_path("data/raw/caf/first", listed)
    assert not known.has_path("data/raw/caf/second", listed)


def test_partitions_without_what_was_forgotten_are_not_read_again(workspace):
    write_shard(workspace, "second", {"carl.png": (9, "Carl")})
    for partition in (FIRST, SECOND):
        run(workspace, partition)
    register(workspace, people=[(ANN, EVERY_SHARD)])
    assert run(workspace, SECOND).status == "skipped"
    assert run(workspace).status == "ran"
    assert run(workspace).status == "skipped"


def test_a_pull_does_not_fetch_it_again(workspace, tmp_path):
    source = workspace.raw_caf.rename(tmp_path / "source")
    folder, ledger = workspace.raw_caf, workspace.state / "pull" / "caf.jsonl"
    pull(source.as_uri(), folder, ledger, "manifest.csv")
    base = workspace.relative(folder)
    known = register(workspace, files=[f"{base}/first/ann.png"])
    for name in ("ann.png", "bob.png"):
        (folder / "first" / name).unlink()

    def is_forgotten(name: str) -> bool:
        return known.has_path(base, name)

    report = pull(source.as_uri(), folder, ledger, "manifest.csv", "caf", is_forgotten)
    assert report.num_new == 1
    assert sorted(path.name for path in (folder / "first").iterdir()) == ["bob.png", "manifest.csv"]


def test_a_stage_that_waited_while_somebody_was_forgotten_stops(workspace):
    """Its inputs were read before: what it would write may hold whoever was forgotten."""
    lock, failures = workspace.state / "locks" / FORGETTING_LOCK, []

    def stage() -> None:
        try:
            run_once(workspace, "stage", {}, "1", {}, lambda: StageReport("stage"))
        except StageError as error:
            failures.append(str(error))

    with exclusive_lock(lock, "a test"):
        thread = threading.Thread(target=stage)
        thread.start()
        _until_somebody_waits(lock)
        register(workspace, people=[(ANN, EVERY_SHARD)])
    thread.join()
    assert "somebody was" in failures[0]
    stage()
    assert len(failures) == 1


def _until_somebody_waits(lock) -> None:
    inode, deadline = f":{os.stat(lock).st_ino} ", time.monotonic() + 30  # noqa: PTH116
    while time.monotonic() < deadline:
        with open("/proc/locks") as stream:  # noqa: PTH123
            if any("->" in line and inode in line for line in stream):
                return
        time.sleep(0.01)
    raise AssertionError("nobody waited for the lock")


def test_lists_of_what_a_network_learned_from(tmp_path):
    workspace = Workspace(tmp_path)
    weights = workspace.models / "experts" / "vgg16" / "weights.safetensors"
    ids = ["b" * 64, "a" * 64, "a" * 64]
    path = write_trained_on(weights, ids)
    before = hash_file(path)
    assert hash_file(write_trained_on(weights, reversed(ids))) == before
    assert read_trained_on(path) == ["a" * 64, "b" * 64]
    folder = workspace.models / "experts" / "janus"
    assert trained_on_path(folder) == folder.with_name("janus.trained_on.parquet")
    write_trained_on(folder, ["c" * 64])
    (found,) = models_trained_on(workspace, {"b" * 64, "d" * 64})
    assert (found.name, found.num_asked, found.num_images) == ("models/experts/vgg16/weights", 1, 2)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="Run the stage that trains it"):
        models_trained_on(workspace, {"b" * 64})


def test_a_whole_workspace_reads_again_without_change(workspace):
    write_shard(workspace, "second", {"carl.png": (9, "Carl")})
    draw(workspace.raw_ffhq / "00000" / "00001.png", 40)
    read_all(workspace)
    assert not read_forgotten(workspace).entries
    assert read_table(workspace, IMAGES).filter(pl.col("subject") == ANN).height == 1
