"""Photographs from shared storage: what is copied, when, and what never happens to what is here."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import ConfigError, DataError, StageError, UnavailableError
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data import remote
from agetf_pipeline.data.remote import pull
from agetf_pipeline.data.shards import scan_shards
from agetf_pipeline.data.storage import OPTIONS_VARIABLE, Store, open_store, unsafe_name

MANIFEST = b"path,subject,age\n0.png,ann,40\n1.png,ann,41\n"


@pytest.fixture(autouse=True)
def memory():
    """The store of `memory://`, which all tests of a process share."""
    store = MemoryFileSystem.store
    store.clear()
    yield store
    store.clear()


@pytest.fixture(params=["memory", "file"])
def uri(request, tmp_path) -> str:
    if request.param == "memory":
        return "memory://bucket/caf"
    (tmp_path / "source").mkdir()
    return f"file://{tmp_path}/source"


class Site:
    """A source, and a workspace that pulls from it."""

    def __init__(self, uri: str, root: Path) -> None:
        self.uri, self.workspace = uri, Workspace(root)
        self.folder = self.workspace.raw_caf
        self.ledger = self.workspace.state / "pull" / "caf.jsonl"

    def put(self, files: dict[str, bytes]) -> None:
        fs, path = fsspec.url_to_fs(self.uri, auto_mkdir=True)
        for name, data in files.items():
            fs.pipe_file(f"{path}/{name}", data)

    def remove(self, *names: str) -> None:
        fs, path = fsspec.url_to_fs(self.uri)
        for name in names:
            fs.rm(f"{path}/{name}")

    def pull(self):
        return pull(self.uri, self.folder, self.ledger, "manifest.csv", "caf")

    def here(self) -> dict[str, bytes]:
        """Every file in the folder, hidden ones too."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }

    def states(self) -> dict[str, str]:
        shards = scan_shards(PipelineConfig(), self.workspace)
        return {shard.name: shard.state for shard in shards}


@pytest.fixture
def site(uri, tmp_path) -> Site:
    return Site(uri, tmp_path / "workspace")


def shard(name: str) -> dict[str, bytes]:
    return {
        f"{name}/0.png": b"zero" + name.encode(),
        f"{name}/1.png": b"one" + name.encode(),
        f"{name}/manifest.csv": MANIFEST,
    }


def counts(report) -> tuple[int, int, int]:
    return report.num_new, report.num_changed, report.num_kept


def fail_on(monkeypatch, word: str, error: BaseException | None = None) -> list[str]:
    """Make the copy of files whose names hold a word fail; return what is asked for, in order."""
    asked: list[str] = []
    copy = remote._copy

    def failing(store, file, target):
        asked.append(file.name)
        if word and word in file.name:
            raise error or OSError("connection reset")
        copy(store, file, target)

    monkeypatch.setattr(remote, "_copy", failing)
    return asked


def test_pulled_shards_are_complete_and_pulled_once(site):
    files = {**shard("a"), **shard("b"), "b/deep/2.png": b"two"}
    site.put(files)
    report = site.pull()
    assert counts(report) == (7, 0, 0)
    assert report.num_bytes == sum(map(len, files.values()))
    assert site.here() == files
    assert site.states() == {"a": "complete", "b": "complete"}
    assert counts(site.pull()) == (0, 0, 7)


def test_new_and_changed_files_alone_are_copied(site, monkeypatch):
    site.put(shard("a"))
    site.pull()
    changed = b"ZERO!" + b"a"  # another size
    site.put({"a/0.png": changed, **shard("b")})
    asked = fail_on(monkeypatch, "")
    assert counts(site.pull()) == (3, 1, 2)
    assert sorted(asked) == ["a/0.png", "b/0.png", "b/1.png", "b/manifest.csv"]
    assert site.here()["a/0.png"] == changed


def test_another_content_of_the_same_size_is_seen(site, tmp_path):
    site.put({"a/0.png": b"old"})
    site.pull()
    site.put({"a/0.png": b"new"})
    if site.uri.startswith("file"):
        os.utime(tmp_path / "source/a/0.png", (1, 1))
    assert counts(site.pull()) == (0, 1, 0)
    assert site.here() == {"a/0.png": b"new"}


def test_what_was_lost_or_cut_here_is_copied_again(site):
    site.put(shard("a"))
    site.pull()
    (site.folder / "a/0.png").unlink()
    (site.folder / "a/1.png").write_bytes(b"o")
    assert counts(site.pull()) == (1, 1, 1)
    assert site.here() == shard("a")


def test_what_vanished_at_the_source_stays_here_and_is_named(site):
    site.put({**shard("a"), **shard("b")})
    site.pull()
    site.remove("a/0.png", "a/1.png")
    report = site.pull()
    assert report.gone == ("a/0.png", "a/1.png")
    assert "No longer at the source, kept here: 2 (a/0.png, a/1.png)." in report.lines()
    assert site.here() == {**shard("a"), **shard("b")}
    assert site.pull().gone == ("a/0.png", "a/1.png")  # until the ledger is deleted


def test_an_empty_listing_after_files_is_an_error(site):
    site.put(shard("a"))
    site.pull()
    site.remove(*shard("a"))
    with pytest.raises(DataError, match=r"as before \(3 were copied\); found none"):
        site.pull()
    assert site.here() == shard("a")


def test_a_source_without_files_yet_says_so(site):
    site.put({".keep": b""})
    report = site.pull()
    assert report.lines()[1:] == ["Nothing is there yet.", "Hidden (a leading dot), left out: 1."]


def test_a_listing_that_fails_is_an_error(site, monkeypatch):
    site.put(shard("a"))
    site.pull()

    def find(self, *args, **kwargs):
        raise RuntimeError("token expired")

    monkeypatch.setattr(MemoryFileSystem, "find", find)
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.ls", find)
    with pytest.raises(UnavailableError, match="RuntimeError: token expired"):
        site.pull()


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    site = Site(f"file://{tmp_path}/source", tmp_path / "workspace")
    with pytest.raises(DataError, match="Mount the disk"):
        site.pull()
    site.put({**shard("a"), **shard("b")})
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("fsspec.implementations.local.os.scandir", refusing)
    with pytest.raises(UnavailableError, match="Permission denied"):  # not: b has no files
        site.pull()


def test_the_manifest_comes_when_all_other_files_are_here(site, monkeypatch):
    site.put({**shard("a"), **shard("b"), "b/9/manifest.csv": b"not the shard's"})
    asked = fail_on(monkeypatch, "a/1.png")
    with pytest.raises(UnavailableError, match=r"1 failed \(a/1.png: OSError: connection reset\)"):
        site.pull()
    assert "a/manifest.csv" not in asked
    assert site.states() == {"a": "incomplete", "b": "complete"}
    assert asked.index("b/manifest.csv") > max(asked.index(f"b/{n}") for n in ("0.png", "1.png"))
    monkeypatch.undo()
    asked = fail_on(monkeypatch, "")
    assert counts(site.pull()) == (2, 0, 5)
    assert asked == ["a/1.png", "a/manifest.csv"]
    assert site.states() == {"a": "complete", "b": "complete"}


def test_an_interrupted_pull_goes_on(site, monkeypatch):
    site.put({f"a/{n:02}.png": b"x" * n for n in range(100)})
    calls = iter(range(5))
    wait = remote.wait

    def interrupted(*args, **kwargs):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return wait(*args, **kwargs)

    monkeypatch.setattr(remote, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        site.pull()
    done = len(site.here())
    assert 5 <= done < 100
    monkeypatch.undo()
    report = site.pull()
    assert report.num_kept >= 5
    assert report.num_new == 100 - done
    assert len(site.here()) == 100


VICTIM = """
import os, signal, sys
from pathlib import Path
from agetf_pipeline.data import remote
from agetf_pipeline.data.storage import Store

class Dying:
    def __init__(self, fs): self._fs = fs
    def __getattr__(self, name): return getattr(self._fs, name)
    def get_file(self, path, target):
        if path.endswith("17.png"):
            Path(target).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        self._fs.get_file(path, target)

opened = remote.open_store
def dying(uri):
    store = opened(uri)
    return Store(store.uri, Dying(store.fs), store.root)
remote.Store.list_files = (lambda listed: lambda self, missing_ok=False: listed(
    Store(self.uri, getattr(self.fs, "_fs", self.fs), self.root)))(Store.list_files)
remote.open_store = dying
remote.pull(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), "manifest.csv")
"""


def test_a_killed_pull_goes_on(tmp_path):
    site = Site(f"file://{tmp_path}/source", tmp_path / "workspace")
    site.put({f"a/{n:02}.png": b"x" * (n + 1) for n in range(30)} | {"a/manifest.csv": MANIFEST})
    command = [sys.executable, "-c", VICTIM, site.uri, str(site.folder), str(site.ledger)]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = site.here()
    assert "a/17.png" not in left
    assert "a/manifest.csv" not in left
    with site.ledger.open("a") as stream:
        stream.write('["a/29.png", 2')  # a line that the kill cut off
    report = site.pull()
    assert report.num_kept >= 10
    assert site.here() == {
        **{f"a/{n:02}.png": b"x" * (n + 1) for n in range(30)},
        "a/manifest.csv": MANIFEST,
    }  # and no temporary file
    assert counts(site.pull()) == (0, 0, 31)


def test_many_failures_stop_the_pull(site, monkeypatch):
    site.put({f"a/{n}.png": b"x" for n in range(100)})
    asked = fail_on(monkeypatch, "a/")
    with pytest.raises(UnavailableError, match="Expected to copy 100 files"):
        site.pull()
    assert 20 <= len(asked) < 40


def test_a_copy_that_was_cut_leaves_what_was_there(site, monkeypatch):
    site.put({"a/0.png": b"whole", "a/manifest.csv": b"m"})
    (site.folder / "a").mkdir(parents=True)
    (site.folder / "a" / "0.png").write_bytes(b"before")
    (site.folder / "a" / ".tmp-left.png").write_bytes(b"of a killed pull")
    open_as_it_is = remote.open_store

    class Cutting:
        def __init__(self, fs) -> None:
            self._fs = fs

        def __getattr__(self, name):
            return getattr(self._fs, name)

        def get_file(self, path, target) -> None:
            Path(target).write_bytes(self._fs.cat_file(path)[:3])

    def cutting(uri):
        store = open_as_it_is(uri)
        listing = store.list_files()
        cut = Store(store.uri, Cutting(store.fs), store.root)
        monkeypatch.setattr(Store, "list_files", lambda self, missing_ok=False: listing)
        return cut

    monkeypatch.setattr(remote, "open_store", cutting)
    with pytest.raises(UnavailableError, match="Expected 5 bytes, as listed; 3 arrived"):
        site.pull()
    assert site.here() == {"a/0.png": b"before"}


BAD_NAMES = ["../evil.png", "a/../../evil.png", "/etc/evil.png", "a\\evil.png", "a//evil.png"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_out_are_not_taken(memory, tmp_path, name):
    site = Site("memory://bucket/caf", tmp_path / "workspace")
    site.put(shard("a"))
    memory[f"/bucket/caf/{name}"] = memory["/bucket/caf/a/0.png"]
    report = site.pull()
    assert site.here() == shard("a")
    assert len(report.refused) == 1
    assert not list(tmp_path.rglob("*evil*"))
    assert "Not taken: 1." in "\n".join(report.lines())


def test_unsafe_names():
    assert unsafe_name("a/b c.png") is None
    assert unsafe_name("...png") is None
    for name in (*BAD_NAMES, "a/./b", "a\0b", "x" * 256, "", ".."):
        assert unsafe_name(name), name


def test_a_file_under_a_folders_name_is_not_taken(monkeypatch):
    def find(self, path, **kwargs):
        names = ("/b/caf/a", "/b/caf/a/0.png", "/b/caf/a/1.png")
        return {name: {"name": name, "size": 1, "type": "file"} for name in names}

    monkeypatch.setattr(MemoryFileSystem, "find", find)
    listing = open_store("memory://b/caf").list_files()
    assert listing.refused == {"a": "A file and a folder have this name."}
    assert set(listing.files) == {"a/0.png", "a/1.png"}


def test_links_lead_nowhere(tmp_path):
    site = Site(f"file://{tmp_path}/source", tmp_path / "workspace")
    site.put({**shard("a"), "b/0.png": b"x"})
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "source/a/link.png").symlink_to(tmp_path / "secret")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    site.folder.mkdir(parents=True)
    (site.folder / "b").symlink_to(elsewhere)
    refused = dict(site.pull().refused)
    assert set(refused) == {"a/link.png", "b/0.png"}
    assert not list(elsewhere.iterdir())
    assert site.here() == shard("a")


def test_md5_of_the_backend_spares_a_copy(memory, tmp_path, monkeypatch):
    site = Site("memory://bucket/caf", tmp_path / "workspace")
    site.put(shard("a"))
    find = MemoryFileSystem.find

    def with_etags(self, path, **kwargs):
        infos = find(self, path, **kwargs)
        for name, info in infos.items():
            info["ETag"] = f'"{hashlib.md5(self.cat_file(name)).hexdigest()}"'
        return infos

    monkeypatch.setattr(MemoryFileSystem, "find", with_etags)
    shutil.rmtree(site.ledger.parent, ignore_errors=True)
    for name, data in {**shard("a"), "a/1.png": b"ONEa"}.items():
        (site.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (site.folder / name).write_bytes(data)
    assert counts(site.pull()) == (0, 1, 2)
    assert counts(site.pull()) == (0, 0, 3)
    assert [json.loads(line)[2][:4] for line in site.ledger.read_text().splitlines()] == [
        "ETag"
    ] * 3


def test_one_pull_at_a_time(site):
    site.put(shard("a"))
    with exclusive_lock(site.ledger.with_suffix(".lock"), "a pull"), pytest.raises(StageError):
        site.pull()


def test_a_disk_that_is_too_small_is_said_before(site, monkeypatch):
    site.put(shard("a"))
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(StageError, match="GB free"):
        site.pull()
    assert not site.here()


@pytest.mark.parametrize(
    ("uri", "said"),
    [("nonsense://x/y", "storage that fsspec knows"), ("s3://b/x", "pip install s3fs")],
)
def test_a_backend_that_is_not_there(monkeypatch, uri, said):
    def absent(protocol):
        if protocol == "s3":
            raise ImportError("Install s3fs to access S3")
        raise ValueError(f"Protocol not known: {protocol}")

    monkeypatch.setattr("agetf_pipeline.data.storage.get_filesystem_class", absent)
    with pytest.raises(ConfigError, match=said):
        open_store(uri)


def test_storage_options_come_by_protocol(monkeypatch):
    monkeypatch.setenv(OPTIONS_VARIABLE, '{"file": {"skip_instance_cache": true}, "s3": {}}')
    assert open_store("file:///tmp").root == "/tmp"
    for text in ("{", "[]", '{"endpoint_url": "http://127.0.0.1:9000"}', '{"x9": {}}'):
        monkeypatch.setenv(OPTIONS_VARIABLE, text)
        with pytest.raises(ConfigError, match=OPTIONS_VARIABLE) as caught:
            open_store("file:///tmp")
        assert "127.0.0.1" not in str(caught.value)
