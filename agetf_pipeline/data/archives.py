"""CAF shards that arrive as archives: unpacked into the folder that ingest reads, or refused.

An archive is taken whole or not at all: the shard's folder appears when everything in it is on the
disk, so that neither the sensor nor a stage ever sees half of one. Members are written as plain
files under checked names; owners, rights, times and links of an archive count for nothing.
"""

import os
import re
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agetf_pipeline.config.ingest import ArchiveLimits
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.files import atomic_folder
from agetf_pipeline.core.hashing import hash_folder
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import is_shard_name
from agetf_pipeline.data.archive_members import (
    Member,
    UnreadableArchiveError,
    is_left_out,
    is_top,
    key_of_name,
    least_unpacked_bytes,
    open_archive,
    problem_of_name,
    require_file,
)
from agetf_pipeline.data.caf import read_manifest
from agetf_pipeline.data.listing import escape_name

_SUFFIXES = re.compile(r"(\.tar)?\.(tar|tgz|gz|zst|tzst|zip)$", re.IGNORECASE)
_NUM_PROBLEMS = 20
_NUM_NAMED = 5
_FREE_BYTES = 64 << 20


@dataclass(frozen=True)
class UnpackReport:
    """What became of an archive that was taken.

    Attributes:
        folder: The shard.
        num_files: Files in it, the manifest included.
        num_bytes: Their bytes.
        left_out: Names of members that no stage reads (hidden ones, `__MACOSX`), escaped.
        was_there: Whether the folder was there already, with the same content.
    """

    folder: Path
    num_files: int
    num_bytes: int
    left_out: tuple[str, ...]
    was_there: bool

    def lines(self) -> list[str]:
        """Return the report as sentences."""
        what = "the same content was there already" if self.was_there else "unpacked"
        lines = [f"{self.folder}: {what}; {self.num_files} files, {self.num_bytes / 1e6:,.1f} MB"]
        if self.left_out:
            lines.append(f"Left out, no stage reads them: {len(self.left_out)} ({self._named()}).")
        return lines

    def _named(self) -> str:
        more = ", ..." if len(self.left_out) > _NUM_NAMED else ""
        return ", ".join(self.left_out[:_NUM_NAMED]) + more


@dataclass
class _Written:
    """What was written so far, and what was found wrong."""

    files: set[str] = field(default_factory=set)  # keys of names
    folders: set[str] = field(default_factory=set)
    num_members: int = 0
    num_bytes: int = 0
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class _SameContentError(Exception):
    """Leaves `atomic_folder` without replacing a folder that has the same content."""


def shard_name_of(archive: Path) -> str:
    """Return the shard that an archive is named for: `caf-2019.tar.gz` is `caf-2019`.

    Raises:
        DataError: The name cannot be a shard's.
    """
    name = _SUFFIXES.sub("", archive.name)
    if not is_shard_name(name):
        raise DataError(
            f"Expected an archive named for its shard (1-64 letters, digits, '-' or '_'); found "
            f"{escape_name(archive.name)}. Say --shard NAME."
        )
    return name


def unpack(archive: Path, folder: Path, limits: ArchiveLimits, locks: Path) -> UnpackReport:
    """Unpack an archive of one shard.

    A single folder at the archive's top is stripped.

    Args:
        archive: A .tar, .tar.gz, .tar.zst or .zip file.
        folder: The shard's folder. It must not exist, or have the same content.
        limits: What is unpacked at all.
        locks: Folder of lock files, so that nobody else unpacks the same shard meanwhile.

    Raises:
        DataError: The archive is refused; the message names what is wrong with it. Or the folder
            is there with other content. Nothing of the archive is left.
        StageError: The disk is too small.
    """
    require_file(archive)
    with exclusive_lock(locks / f"{folder.name}.lock", f"unpacking {folder.name}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            least = least_unpacked_bytes(archive, limits.max_members)
        except UnreadableArchiveError as error:
            raise _refused(archive, [str(error)]) from error
        _require_room(folder.parent, least, archive)
        done, was_there = _Written(), False
        try:
            with atomic_folder(folder) as temporary:
                _write_members(archive, temporary, limits, done)
                _strip_top(temporary)
                _require_manifest(archive, temporary)
                if folder.exists():
                    _compare(archive, temporary, folder)
        except _SameContentError:
            was_there = True
    return UnpackReport(
        folder, len(done.files), done.num_bytes, tuple(sorted(done.left_out)), was_there
    )


def _write_members(archive: Path, into: Path, limits: ArchiveLimits, done: _Written) -> None:
    packed = archive.stat().st_size
    try:
        with open_archive(archive, limits.max_members) as members:
            for member in members:
                done.num_members += 1
                if done.num_members > limits.max_members:
                    raise _refused(archive, [f"more than {limits.max_members} members"])
                if is_top(member):
                    continue
                problem = problem_of_name(member.name, limits.max_path_bytes, limits.max_depth)
                wanted = problem is None and not is_left_out(member.name)
                if wanted:
                    problem = member.problem or _collision(member, done)
                elif problem is None:
                    done.left_out.append(escape_name(member.name))
                if problem is not None:
                    done.problems.append(f"{escape_name(member.name)[:300]}: {problem}")
                if len(done.problems) >= _NUM_PROBLEMS:
                    break
                blocks = _counted(member, archive, packed, limits, done)
                if wanted and not done.problems and not member.is_folder:
                    _write(into / member.name, blocks)
                else:  # within the limits too: a tar is read through to come to the next member
                    deque(blocks, maxlen=0)
    except UnreadableArchiveError as error:
        raise _refused(archive, [*done.problems, str(error)]) from error
    if done.problems:
        raise _refused(archive, done.problems)


def _collision(member: Member, done: _Written) -> str | None:
    """Return why a member cannot lie beside those before it; remember its name where it can."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    keys = [key_of_name("/".join(parts[:end])) for end in range(1, len(parts) + 1)]
    above, key = set(keys[:-1]), keys[-1]
    if above & done.files or key in done.files or (not member.is_folder and key in done.folders):
        return "a second member of that name (capitals and Unicode forms aside)"
    done.folders |= above
    if member.is_folder:
        done.folders.add(key)
    else:
        done.files.add(key)
    return None


def _counted(
    member: Member, archive: Path, packed: int, limits: ArchiveLimits, done: _Written
) -> Iterator[bytes]:
    """Yield a member's content while it stays within the limits."""
    num_bytes = 0
    for block in member.blocks():
        num_bytes += len(block)
        done.num_bytes += len(block)
        exceeded = {
            f"over {limits.max_member_bytes} bytes": num_bytes > limits.max_member_bytes,
            f"over {limits.max_bytes} bytes in all": done.num_bytes > limits.max_bytes,
            f"unpacks to over {limits.max_ratio:g} times the archive": done.num_bytes
            > limits.max_ratio * max(packed, 1 << 16),
        }
        problem = next((text for text, applies in exceeded.items() if applies), None)
        if problem is not None:
            raise _refused(archive, [f"{escape_name(member.name)[:300]}: {problem}"])
        yield block


def _write(path: Path, blocks: Iterator[bytes]) -> None:
    """Write a new file and bring it to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as stream:
        for block in blocks:
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())


def _strip_top(folder: Path) -> None:
    """Move what lies in the only folder at the top one level up."""
    entries = list(folder.iterdir())
    if len(entries) != 1 or not entries[0].is_dir():
        return
    top = entries[0].rename(folder / ".top")  # hidden names were left out: nothing is called so
    for entry in top.iterdir():
        entry.rename(folder / entry.name)
    top.rmdir()


def _require_manifest(archive: Path, folder: Path) -> None:
    try:
        read_manifest(folder)
    except DataError as error:
        text = str(error).replace(f"{folder}{os.sep}", f"{escape_name(archive.name)}/")
        raise DataError(f"{text} Nothing was unpacked.") from error


def _compare(archive: Path, unpacked: Path, folder: Path) -> None:
    with suppress(UnicodeEncodeError):  # a name that is not UTF-8: no archive brings such
        if hash_folder(unpacked) == hash_folder(folder):
            raise _SameContentError
    raise DataError(
        f"Expected no shard at {folder}, or one with what {escape_name(archive.name)} holds; found "
        "other content. Nothing is overwritten: say --shard with another name, or move the folder "
        "away."
    )


def _require_room(folder: Path, num_bytes: int, archive: Path) -> None:
    """Check the disk against what an archive unpacks to at least.

    Raises:
        StageError: There is not even room for that.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes + _FREE_BYTES > free:
        raise StageError(
            f"Expected room for {escape_name(archive.name)} ({num_bytes / 1e9:.2f} GB at least) in "
            f"{folder}; found {free / 1e9:.2f} GB free. Make room, or unpack elsewhere."
        )


def _refused(archive: Path, problems: list[str]) -> DataError:
    named = "; ".join(problems[:_NUM_NAMED])
    more = "" if len(problems) <= _NUM_NAMED else f"; {len(problems) - _NUM_NAMED} or more others"
    return DataError(
        f"Expected an archive of plain files within the limits (ingest.archives) at "
        f"{escape_name(str(archive))}; found {named}{more}. Nothing was unpacked: ask whoever made "
        "it, and pack it anew."
    )
