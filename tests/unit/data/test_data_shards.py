"""CAF shards as they arrive: complete, incomplete, broken, changed, gone."""

import json
import os

import pytest

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data import shards as shards_module
from agetf_pipeline.data.shard_requests import request_book
from agetf_pipeline.data.shards import ledger_path, scan_shards


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


def write_shard(workspace, name, rows=("a.png,ann,40",), files=("a.png",)):
    folder = workspace.raw_caf / name
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"pixels")
    if rows is not None:
        (folder / "manifest.csv").write_text("\n".join(["path,subject,age", *rows]) + "\n")
    return folder


def scan(workspace, known=None) -> dict:
    return {shard.name: shard for shard in scan_shards(PipelineConfig(), workspace, known)}


def test_each_state_has_its_reason(workspace):
    write_shard(workspace, "whole", ["a.png,ann,40", "deep/b.png,ann,41"], ["a.png", "deep/b.png"])
    write_shard(workspace, "early", None)
    rows = [f"{n}.png,ann,40" for n in range(6)]
    folder = write_shard(workspace, "part", rows, ["0.png", "1.png"])
    (folder / "1.png").write_bytes(b"")
    write_shard(workspace, "cut", ["a.png,ann,40", "b.png"])
    write_shard(workspace, "bare", [], [])
    write_shard(workspace, "my photos")
    (folder / "manifest.csv").chmod(0o644)
    found = scan(workspace)
    assert {name: shard.state for name, shard in found.items()} == {
        "whole": "complete",
        "early": "incomplete",
        "part": "incomplete",
        "cut": "broken",
        "bare": "incomplete",
        "my photos": "badly_named",
    }
    assert found["whole"].num_files == 2
    assert len(found["whole"].fingerprint) == 64
    assert found["early"].reason == "There is no manifest.csv (1 files so far)."
    assert found["part"].reason == (
        "Of 6 files that manifest.csv lists: 4 missing (2.png, 3.png, 4.png and 1 more), "
        "1 empty (1.png)."
    )
    assert "line 3" in found["cut"].reason
    assert all(shard.remedy for shard in found.values() if shard.state != "complete")
    assert all(not shard.fingerprint for shard in found.values() if shard.state != "complete")


def test_what_ingest_puts_in_quarantine_does_not_hold_a_shard_up(workspace):
    write_shard(workspace, "s", ["a.png,ann,400", "../b.png,ann,4"], ["a.png", "unlisted.png"])
    assert scan(workspace)["s"].state == "complete"


def test_a_folder_that_cannot_be_listed_is_broken_and_the_others_are_read(workspace, monkeypatch):
    write_shard(workspace, "shut")
    write_shard(workspace, "open")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(shards_module.os, "scandir", scandir)
    found = scan(workspace)
    assert (found["shut"].state, found["open"].state) == ("broken", "complete")
    assert "Permission denied" in found["shut"].reason


def test_the_fingerprint_follows_the_manifest_and_the_listed_files_alone(workspace):
    folder = write_shard(workspace, "s")
    first = scan(workspace)["s"].fingerprint
    (folder / "notes.txt").write_text("not listed")
    (folder / ".DS_Store").write_text("")
    assert scan(workspace)["s"].fingerprint == first
    (folder / "a.png").write_bytes(b"other pixels")
    second = scan(workspace)["s"].fingerprint
    (folder / "manifest.csv").write_text("path,subject,age\na.png,ann,41\n")
    third = scan(workspace)["s"].fingerprint
    assert len({first, second, third}) == 3


def test_unchanged_shards_are_not_read_again(workspace, monkeypatch):
    for name in ("a", "b"):
        write_shard(workspace, name)
    write_shard(workspace, "cut", ["a.png"])
    before = scan(workspace)
    ledger = ledger_path(workspace).read_bytes()
    read = []
    real = shards_module.read_manifest
    monkeypatch.setattr(
        shards_module, "read_manifest", lambda folder: read.append(folder.name) or real(folder)
    )
    assert scan(workspace) == before
    assert read == []
    assert ledger_path(workspace).read_bytes() == ledger
    (workspace.raw_caf / "b" / "a.png").write_bytes(b"longer pixels")
    scan(workspace)
    assert read == ["b"]
    ledger_path(workspace).write_text("{ half a led")
    assert scan(workspace)["a"] == before["a"]
    assert read == ["b", "a", "b", "cut"]


def test_a_removed_shard_is_remembered_until_it_is_forgotten(workspace):
    for name in ("a", "b"):
        write_shard(workspace, name)
    write_shard(workspace, "early", None)
    scan(workspace, known=["a"])
    for name in ("a", "b", "early"):
        (workspace.raw_caf / name).rename(workspace.root / name)
    found = scan(workspace)
    assert {name: shard.state for name, shard in found.items()} == {"a": "removed", "b": "removed"}
    # Only partitions can be removed: b never was one.
    assert set(scan(workspace, known=["a"])) == {"a"}
    assert json.loads(ledger_path(workspace).read_text())["removed"] == ["a"]
    assert set(scan(workspace)) == {"a"}
    (workspace.root / "a").rename(workspace.raw_caf / "a")
    assert scan(workspace, known=["a"])["a"].state == "complete"
    (workspace.raw_caf / "a").rename(workspace.root / "a")
    assert scan(workspace, known=[]) == {}


def test_a_failed_read_is_no_empty_source(workspace):
    assert scan(workspace) == {}
    write_shard(workspace, "a")
    scan(workspace)
    workspace.raw_caf.rename(workspace.root / "unmounted")
    with pytest.raises(DataError, match="Mount it"):
        scan(workspace)
    (workspace.root / "unmounted").rename(workspace.raw_caf)
    assert scan(workspace)["a"].state == "complete"


def test_each_shard_is_due_once_and_again_when_it_changes(workspace):
    with request_book(workspace, "one") as book:
        assert book.due({"a": "1" * 64, "b": "2" * 64}, []) == {"a": "1" * 12, "b": "2" * 12}
        token = book.promise({"a": "1" * 12})
    with request_book(workspace, "one") as book:
        book.settle(token)
        assert set(book.due({"a": "1" * 64, "b": "2" * 64}, ["a", "b"])) == {"b"}
        assert set(book.due({"a": "3" * 64}, ["a"])) == {"a"}
        # Another instance has its own partitions, and this one lost its partition.
        assert set(book.due({"a": "1" * 64}, [])) == {"a"}
    with request_book(workspace, "two") as book:
        assert book.taken == {}


def test_a_request_that_was_not_taken_is_made_again(workspace):
    with request_book(workspace, "one") as book:
        first = book.promise({"a": "1" * 12})
    with request_book(workspace, "one") as book:
        book.settle(None)
        assert set(book.due({"a": "1" * 64}, ["a"])) == {"a"}
        second = book.promise({"a": "1" * 12})
    assert second != first
    with request_book(workspace, "one") as book:
        book.settle(second)
        assert book.due({"a": "1" * 64}, ["a"]) == {}
        book.take({"b": "2" * 64})
        assert book.due({"b": "2" * 64}, ["b"]) == {}
