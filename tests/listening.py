"""Which addresses a process and what it started listen on, by the kernel's own tables."""

import socket
import struct
from pathlib import Path

_LISTEN = "0A"


def addresses_of(pid: int) -> set[str]:
    """Return the addresses on which the processes of a process's group listen over TCP."""
    inodes = {inode for member in _group(pid) for inode in _sockets(member)}
    return {
        _address(fields[1].partition(":")[0])
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        if (fields := line.split())[3] == _LISTEN and fields[9] in inodes
    }


def find_process(*words: str) -> int:
    """Return the process whose command line holds all of these words."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if all(word in command for word in words):
            return int(folder.name)
    raise AssertionError(f"no process of {words}")


def _group(pid: int) -> list[int]:
    group, members = _group_of(pid), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if _group_of(int(folder.name)) == group:
                members.append(int(folder.name))
        except OSError:
            continue
    return members


def _group_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[2])


def _sockets(pid: int) -> set[str]:
    found = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = str(link.readlink())
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass  # it ended meanwhile
    return found


def _address(digits: str) -> str:
    if len(digits) == 8:
        return socket.inet_ntop(socket.AF_INET, struct.pack("<I", int(digits, 16)))
    words = [int(digits[start : start + 8], 16) for start in range(0, 32, 8)]
    return socket.inet_ntop(socket.AF_INET6, struct.pack("<4I", *words))
