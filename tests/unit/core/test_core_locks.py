"""Locks of files: whom they keep out, and what a file server asks of the file that is locked."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from agetf_pipeline.core import leases
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.locks import exclusive_lock, shared_lock
from agetf_pipeline.upkeep import doctor_workspace
from resources import gpu


@pytest.fixture
def asked(monkeypatch) -> list[tuple[int, int]]:
    """Lock as NFS 4 does: no lock without the access it stands for. Return (access, lock) pairs.

    Stands for a file server, which the tests have none of; the kernel's locks are taken all the
    same.
    """
    seen = []
    lock = fcntl.flock

    def as_nfs_does(stream, operation):
        mode = fcntl.fcntl(stream, fcntl.F_GETFL) & os.O_ACCMODE
        seen.append((mode, operation))
        if (operation & fcntl.LOCK_SH and mode == os.O_WRONLY) or (
            operation & fcntl.LOCK_EX and mode == os.O_RDONLY
        ):
            raise OSError(errno.EBADF, "Bad file descriptor")
        return lock(stream, operation)

    monkeypatch.setattr(fcntl, "flock", as_nfs_does)
    return seen


def test_a_file_server_gives_the_locks(tmp_path: Path, asked, monkeypatch):
    path = tmp_path / "locks" / "one.lock"
    with shared_lock(path), shared_lock(path):
        pass
    with exclusive_lock(path, "x", wait=False):
        pass
    monkeypatch.setenv(leases.LEASE_VARIABLE, str(path))
    leases.join_leases()
    leases._joined.pop(str(path)).close()
    device = gpu._try(tmp_path / "gpu0.lock")
    assert device is not None
    device.close()
    assert list(doctor_workspace._probe(tmp_path)) == []
    assert {mode for mode, _ in asked} == {os.O_RDWR}
    assert any(operation & fcntl.LOCK_SH for _, operation in asked)


def test_a_shared_lock_keeps_the_one_out_who_wants_it_alone(tmp_path: Path):
    path = tmp_path / "one.lock"
    with (
        shared_lock(path),
        pytest.raises(StageError, match="another process holds"),
        exclusive_lock(path, "x", wait=False),
    ):
        pass
    with exclusive_lock(path, "x", wait=False):
        assert path.is_file()
