"""Folders that may not be written, an interruption, and a reader that went away."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_disk import NEEDS_MOUNT, read_only
from small_registry import agetf, make_registry
from tiny_shards import REPOSITORY, write_config, write_shard

from agetf_pipeline.cli import main
from agetf_pipeline.core.ending import INTERRUPTED, NOBODY_READS
from agetf_pipeline.core.errors import StorageError
from agetf_pipeline.core.files import write_bytes
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace

NOBODY = 65534
PATIENCE_S = 60


def make(folder: Path, num_shards: int = 1, num_images: int = 2) -> tuple[Path, Path]:
    """Return the root of a workspace with shards, and a config over it."""
    root = folder / "workspace"
    for number in range(num_shards):
        write_shard(Workspace(root), f"shard-{number}", number, num_images)
    return root, write_config(folder, root)


def tables(root: Path) -> dict[str, str]:
    found = sorted((root / "data" / "tables").rglob("*.parquet"))
    return {path.relative_to(root).as_posix(): hash_file(path) for path in found}


def agetf_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "agetf_pipeline.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY)}


@NEEDS_MOUNT
def test_a_read_only_workspace_is_named_and_comes_to_no_harm(tmp_path, capsys):
    root, config = make(tmp_path)
    command = ["ingest", "--config", str(config), "--quiet"]
    assert main(command) == 0
    before = tables(root)
    write_shard(Workspace(root), "later", seed=9)
    with read_only(root):
        capsys.readouterr()
        assert main(command) == 1
        printed = capsys.readouterr().err
        assert "Read-only file system" in printed
        assert str(root) in printed
        assert "what was finished is kept" in printed
        assert "Traceback" not in printed
        assert tables(root) == before
    assert main(command) == 0
    after = tables(root)
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)


@NEEDS_MOUNT
def test_a_read_only_registry_is_named(tmp_path, capsys):
    workspace = make_registry(tmp_path / "workspace", 1)
    with read_only(workspace.root):
        capsys.readouterr()
        assert agetf(workspace, "promote", "1", "--reason", "try") == 1
        printed = capsys.readouterr().err
        assert "Read-only file system" in printed
        assert "Traceback" not in printed
    assert agetf(workspace, "promote", "1", "--reason", "again") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_folder_is_named(tmp_path):
    folder = tmp_path / "owned"
    folder.mkdir(mode=0o755)
    write_bytes(folder / "table.bin", b"old")
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent != Path("/tmp") and parent.is_relative_to("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        said = "nothing"
        try:
            write_bytes(folder / "table.bin", b"new")
        except StorageError as error:
            said = str(error)
        finally:
            os.write(write_end, said.encode())
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    assert "Permission denied" in said
    assert f"as user {NOBODY}" in said
    assert "grant that user the right" in said
    assert (folder / "table.bin").read_bytes() == b"old"
    assert [path.name for path in folder.iterdir()] == ["table.bin"]


def test_ctrl_c_is_one_line_and_leaves_no_process(tmp_path):
    root, config = make(tmp_path, num_shards=8, num_images=8)
    process = subprocess.Popen(
        agetf_command("ingest", "--config", config),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: tables(root) and children_of(process.pid))
    children = children_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == INTERRUPTED, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("Interrupted.")
    wait_for(lambda: not any(is_alive(child) for child in children))
    assert list(root.rglob(".tmp-*")) == []
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(root / "data" / "raw", undisturbed / "workspace" / "data" / "raw")
    assert main(["ingest", "--config", str(config), "--quiet"]) == 0
    other = write_config(undisturbed, undisturbed / "workspace")
    assert main(["ingest", "--config", str(other), "--quiet"]) == 0
    assert tables(root) == tables(undisturbed / "workspace")


def wait_for(condition) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "it took too long"
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_reader_that_went_away_is_no_traceback(tmp_path):
    _, config = make(tmp_path, num_shards=3)
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        agetf_command("ingest", "--config", config, "--quiet"),
        env=environment(),
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    os.close(write_end)
    assert done.returncode == NOBODY_READS, done.stderr
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr
