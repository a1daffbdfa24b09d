"""What is an error of the disk, what is none, and of which disk it speaks."""

import errno
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_shards import REPOSITORY

from agetf_pipeline.core.ending import describe_ending
from agetf_pipeline.core.errors import StorageError
from agetf_pipeline.core.storage_errors import storage_error, writing_to

FORBIDDEN = PermissionError(errno.EACCES, "Permission denied", "/data/cache/index")


def raised(function) -> BaseException:
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


def bug_in_a_handler():
    try:
        raise FORBIDDEN
    except PermissionError:
        {}["expected_key"]


def bug_that_hides_what_was_before():
    try:
        raise FORBIDDEN
    except PermissionError:
        raise OSError("no such index") from None


def port_of_another():
    with socket.socket() as taken, socket.socket() as other:
        taken.bind(("127.0.0.1", 0))
        other.bind(taken.getsockname())


@pytest.mark.parametrize(
    "error",
    [
        raised(bug_in_a_handler),
        raised(bug_that_hides_what_was_before),
        raised(port_of_another),
        PermissionError(errno.EACCES, "Permission denied"),  # a port below 1024
        PermissionError(errno.EPERM, "Operation not permitted"),  # a process of somebody else
        RuntimeError("(psycopg2.errors.InsufficientPrivilege) permission denied for table runs"),
        OSError("An error occurred (AccessDenied) when calling PutObject: Permission denied"),
        RuntimeError("ssh: permission denied (publickey)"),
    ],
    ids=repr,
)
def test_what_is_no_error_of_the_disk_keeps_its_traceback(tmp_path, error):
    assert storage_error(error, tmp_path) is None
    assert describe_ending(error, tmp_path) is None


def test_what_it_was_raised_from_counts_and_what_libraries_repeat(tmp_path):
    def with_cause():
        try:
            raise FORBIDDEN
        except PermissionError as error:
            raise RuntimeError("the index is away") from error

    def in_a_library():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise sqlite3.OperationalError("cannot commit")  # noqa: B904 - as libraries do

    found = storage_error(raised(with_cause), tmp_path)
    assert "/data/cache/index" in str(found)
    assert "No space left" in str(storage_error(raised(in_a_library), tmp_path))
    assert storage_error(sqlite3.OperationalError("database or disk is full"), tmp_path)


def test_a_file_that_may_not_be_read_is_not_said_to_be_written(tmp_path):
    found = storage_error(
        PermissionError(errno.EACCES, "Permission denied", "/data/a.jpg"), tmp_path
    )
    assert "Expected to be allowed to read or write /data/a.jpg" in str(found)


def test_another_disk_that_is_full_is_the_one_that_is_named(tmp_path):
    elsewhere = tmp_path / "spill" / "part-0"
    error = OSError(errno.ENOSPC, "No space left on device", str(elsewhere))
    with pytest.raises(OSError) as caught, writing_to(tmp_path / "tables" / "x.parquet"):
        raise error
    assert caught.value is error
    assert str(elsewhere) in str(storage_error(error, tmp_path / "tables"))
    with pytest.raises(StorageError, match=r"x\.parquet"), writing_to(tmp_path / "x.parquet"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ValueError, match="caption"), writing_to(tmp_path / "x.parquet"):
        raise ValueError("the caption says: permission denied")


@pytest.mark.parametrize(
    ("broken", "command"),
    [
        ("agetf_pipeline.commands.registry:run", "agetf_pipeline.cli:main(['registry', 'list'])"),
        ("jobs.launch:prepare_home", "jobs.launch:main(['--home', 'home'])"),
        ("jobs.serve:prepare_home", "jobs.serve:main(['--home', 'home'])"),
    ],
)
def test_a_traceback_on_the_terminal_tells_no_secret(tmp_path: Path, broken, command):
    """What is replaced stands for a bug, in a library or in ours."""
    script = f"""
import importlib, sys
def bug(*_, **__):
    raise RuntimeError("GET https://u:s3cr3t@host/?sig=s3cr3t: password=s3cr3t, of-the-env")
module, name = {broken!r}.split(":")
setattr(importlib.import_module(module), name, bug)
module, call = {command!r}.split(":")
sys.exit(eval(call, vars(importlib.import_module(module))))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_TOKEN": "of-the-env"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" in done.stderr
    assert "in bug" in done.stderr
    assert "***" in done.stderr
    assert "s3cr3t" not in done.stderr
    assert "of-the-env" not in done.stderr


def test_what_serves_loads_no_tables():
    script = "import jobs.ending, sys; print({'polars', 'pyarrow'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "set()\n"
