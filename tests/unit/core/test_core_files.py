"""Atomic files, hashes, locks and the folders of a workspace."""

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.files import (
    atomic_folder,
    atomic_path,
    read_json,
    remove_temporary_files,
    write_json,
    write_text,
)
from agetf_pipeline.core.hashing import (
    canonical_json,
    fingerprint,
    hash_bytes,
    hash_file,
    hash_files,
)
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace, caf_partition, is_caf, shard_of


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a" / "file.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert names(path.parent) == ["file.txt"]


def test_content_is_on_disk_before_its_name_is(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (events.append("name"), replace(a, b))[1])
    write_text(tmp_path / "file.txt", "text")
    assert events == ["sync", "name", "sync"]


def test_written_files_are_as_readable_as_any_other(tmp_path):
    write_text(tmp_path / "one", "1")
    (tmp_path / "two").write_text("2")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("one", "two")}
    assert len(modes) == 1


def test_json_is_the_same_for_equal_values_and_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [2]})
    write_json(tmp_path / "b.json", {"a": [2], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": [2], "b": 1}
    with pytest.raises(ValueError):
        write_json(tmp_path / "c.json", {"a": float("nan")})
    assert not (tmp_path / "c.json").exists()


def test_what_a_killed_writer_left_goes_with_the_next_write_of_another_process(tmp_path):
    context = multiprocessing.get_context("forkserver")
    victim = context.Process(target=die_while_writing, args=(tmp_path,))
    victim.start()
    victim.join()
    assert len([name for name in names(tmp_path) if name.startswith(".tmp-")]) == 2
    heir = context.Process(target=write_text, args=(tmp_path / "other.txt", "new"))
    heir.start()
    heir.join()
    assert names(tmp_path) == ["other.txt"]


def die_while_writing(folder: Path) -> None:
    with atomic_folder(folder / "folder"), atomic_path(folder / "file.txt") as temporary:
        temporary.write_text("half")
        os._exit(1)


def test_a_write_under_way_is_no_leftover(tmp_path):
    context = multiprocessing.get_context("forkserver")
    with atomic_path(tmp_path / "slow.txt") as temporary:
        temporary.write_text("slow")
        other = context.Process(target=write_text, args=(tmp_path / "other.txt", "new"))
        other.start()
        other.join()
        assert other.exitcode == 0
    assert sorted(names(tmp_path)) == ["other.txt", "slow.txt"]


def test_only_temporary_files_are_cleared(tmp_path):
    (tmp_path / ".tmp-1.png").write_bytes(b"")
    (tmp_path / "kept.png").write_bytes(b"")
    assert remove_temporary_files(tmp_path) == 1
    assert remove_temporary_files(tmp_path / "absent") == 0
    assert names(tmp_path) == ["kept.png"]


def test_nothing_is_cleared_while_somebody_writes(tmp_path):
    with atomic_path(tmp_path / "slow.txt") as temporary:
        assert remove_temporary_files(tmp_path) == 0
        temporary.write_text("slow")
    assert names(tmp_path) == ["slow.txt"]


def test_another_machine_s_temporary_files_go_by_age_alone(tmp_path):
    # A lock of a folder on a network file system holds on one machine: another may be writing.
    theirs = tmp_path / ".tmp-m00000000-abcdefgh.png"
    theirs.write_bytes(b"half")
    assert remove_temporary_files(tmp_path) == 0
    write_text(tmp_path / "a.txt", "a")
    assert theirs.exists()
    os.utime(theirs, (0, 0))
    assert remove_temporary_files(tmp_path) == 1
    assert names(tmp_path) == ["a.txt"]


def test_hashes_of_files_depend_on_names_and_contents_alone(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"1" * 3_000_000)
    second.write_bytes(b"2")
    assert hash_file(first) == hash_bytes(b"1" * 3_000_000)
    both = hash_files([first, second], tmp_path)
    assert both == hash_files([second, first], tmp_path)
    first.rename(tmp_path / "c")
    assert both != hash_files([tmp_path / "c", second], tmp_path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(), _JSON, max_size=5))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(settings):
    turned = dict(reversed(settings.items()))
    assert fingerprint(settings, "1", {}) == fingerprint(turned, "1", {})
    assert fingerprint(settings, "1", {}) != fingerprint(settings, "2", {})
    assert fingerprint(settings, "1", {}) != fingerprint(settings, "1", {"a": "b"})
    assert json.loads(canonical_json(settings)) == settings


def _try_lock(path: Path, answers) -> None:
    try:
        with exclusive_lock(path, "the test", wait=False):
            answers.put("held")
    except StageError as error:
        answers.put(str(error))


def test_a_lock_keeps_another_process_out_and_is_freed(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with exclusive_lock(tmp_path / "deep" / "x.lock", "the test"):
        other = context.Process(target=_try_lock, args=(tmp_path / "deep" / "x.lock", answers))
        other.start()
        assert "alone in the test" in answers.get(timeout=30)
        other.join()
    with exclusive_lock(tmp_path / "deep" / "x.lock", "the test", wait=False):
        pass


@pytest.mark.parametrize("shard", ["", "a b", "../x", "a/b", "x" * 65, "é"])
def test_shard_names_that_could_be_paths_are_refused(shard):
    with pytest.raises(DataError, match="Rename the folder"):
        caf_partition(shard)


def test_partitions_and_their_shards():
    assert shard_of(caf_partition("shard-0000")) == "shard-0000"
    assert is_caf("caf/a")
    assert not is_caf("ffhq_aging")
    with pytest.raises(DataError):
        shard_of("ffhq_aging")


def test_paths_in_tables_are_relative_to_the_root(tmp_path):
    workspace = Workspace(tmp_path / "root")
    inside = workspace.raw_caf / "a" / "1.png"
    assert workspace.relative(inside) == "data/raw/caf/a/1.png"
    assert workspace.resolve("data/raw/caf/a/1.png") == inside
    outside = tmp_path / "elsewhere.png"
    assert workspace.resolve(workspace.relative(outside)) == outside
