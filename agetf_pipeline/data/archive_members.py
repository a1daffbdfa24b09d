"""What lies in a .tar, .tar.gz, .tar.zst or .zip, member by member, and which names are taken.

Nothing is written here, and nothing of an archive is believed: headers are read within a budget,
contents come as a stream of blocks whose sizes the caller counts.
"""

import gzip
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agetf_pipeline.core.errors import DataError

BLOCK_BYTES = 1 << 20
_HEADER_BYTES = 2 << 20
_ENTRY_BYTES = 46 + 512  # of a zip's directory, beside the name
_COMPONENT_BYTES = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"^[A-Za-z]:")
# A frame of data, or one to be skipped, which pzstd writes before each of them (RFC 8878, 3.1).
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")
_LEFT_OUT = ("__MACOSX", "Thumbs.db", "desktop.ini")


_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    OverflowError,
    ValueError,
    RuntimeError,  # a version or a way of packing that zipfile does not know
)


class UnreadableArchiveError(Exception):
    """The archive is damaged, of no kind that is read, or its headers are out of all proportion."""


@dataclass(frozen=True)
class Member:
    """One member of an archive.

    Attributes:
        name: As the archive has it; bytes that are not UTF-8 are surrogates.
        is_folder: Whether it is a folder.
        problem: Why it cannot be taken whatever its name, such as a link; None for a plain file.
        blocks: Yields its content, unpacked.
    """

    name: str
    is_folder: bool
    problem: str | None
    blocks: Callable[[], Iterator[bytes]]


@contextmanager
def open_archive(path: Path, max_members: int) -> Iterator[Iterator[Member]]:
    """Give the members of an archive, in its order; the kind is seen from its first bytes.

    Each member's content is to be read to its end before the next one is asked for.

    Raises:
        UnreadableArchiveError: See there; also raised by the iterators.
    """
    with path.open("rb") as stream:
        head = stream.read(512)
        stream.seek(0)
        try:
            if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                yield _zip_members(stream, max_members)
            elif head.startswith(b"\x1f\x8b"):
                yield _tar_members(gzip.GzipFile(fileobj=stream))
            elif _ZSTD.match(head):
                import pyarrow as pa

                yield _tar_members(pa.CompressedInputStream(stream, "zstd"))
            elif head[257:262] == b"ustar":
                yield _tar_members(stream)
            else:
                raise UnreadableArchiveError("no tar, tar.gz, tar.zst or zip file")
        except _DAMAGED as error:
            raise UnreadableArchiveError(f"damaged: {error or type(error).__name__}") from error
        except OSError as error:
            # gzip and zstd say by it that the stream is damaged; the system's have a number.
            if error.errno is not None:
                raise
            raise UnreadableArchiveError(f"damaged: {error}") from error


def least_unpacked_bytes(path: Path, max_members: int) -> int:
    """Return how much an archive unpacks to at least: as a zip says, or its own size.

    Raises:
        UnreadableArchiveError: It is a damaged zip.
    """
    if zipfile.is_zipfile(path):
        try:
            with path.open("rb") as stream:
                _check_directory(stream, max_members)
            with zipfile.ZipFile(path) as archive:
                return sum(info.file_size for info in archive.infolist())
        except _DAMAGED as error:
            raise UnreadableArchiveError(f"damaged: {error}") from error
    return path.stat().st_size


def is_left_out(name: str) -> bool:
    """Whether a member is a file system's own business, which no stage reads."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return any((part.startswith(".") and part != "..") or part in _LEFT_OUT for part in parts)


def is_top(member: Member) -> bool:
    """Whether a member is the packed folder itself: `tar -C shard .` begins with `./`."""
    parts = member.name.split("/")
    return member.is_folder and parts[0] == "." and not set(parts) - {"", "."}


def problem_of_name(name: str, max_path_bytes: int, max_depth: int) -> str | None:
    """Return why a member's name is not taken, None for one that is."""
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        return "the name is not UTF-8"
    parts = name.rstrip("/").split("/")
    longest = max(len(part.encode()) for part in parts)
    problems = {
        "an absolute path": name.startswith("/"),
        "a drive letter": _DRIVE.match(name) is not None,
        "leads upwards (..)": ".." in parts,
        "a backslash in the name": "\\" in name,
        "a control character in the name": _CONTROL.search(name) is not None,
        "an empty name": not any(part not in ("", ".") for part in parts),
        f"a part of the path over {_COMPONENT_BYTES} bytes": longest > _COMPONENT_BYTES,
        f"a path over {max_path_bytes} bytes": len(raw) > max_path_bytes,
        f"more than {max_depth} folders deep": len(parts) - 1 > max_depth,
    }
    return next((problem for problem, applies in problems.items() if applies), None)


def key_of_name(name: str) -> str:
    """Return what two names share that some file system takes for one: NFC, without case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class _Bounded:
    """A stream of which no more is read than was allowed: a tar's headers have no limit."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = 0

    def allow(self, num_bytes: int) -> None:
        self._left = num_bytes

    def read(self, size: int) -> bytes:
        if self._left < 0:
            raise UnreadableArchiveError(f"a header of more than {_HEADER_BYTES} bytes")
        data = self._stream.read(size)
        self._left -= len(data)
        return data


_END_MARK: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined]


class _Header(tarfile.TarInfo):
    """A header of a tar: a damaged one, or none, is an error; tarfile takes it for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":  # type: ignore[override]
        try:
            return super().fromtarfile(archive)
        except _END_MARK:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}, where a header or the end mark should be") from error


def _tar_members(stream: "IO[bytes] | Any") -> Iterator[Member]:
    bounded = _Bounded(stream)
    bounded.allow(_HEADER_BYTES)
    reads: Any = bounded
    # As a stream: nothing is looked up by offsets, which a header may give as it likes.
    with tarfile.open(
        fileobj=reads, mode="r|", encoding="utf-8", errors="surrogateescape", tarinfo=_Header
    ) as archive:
        while True:
            bounded.allow(_HEADER_BYTES)
            info = archive.next()
            archive.members = []  # type: ignore[attr-defined]  # kept by tarfile for lookups that are not made here
            if info is None:
                while bounded.read(BLOCK_BYTES):  # padding, and the checksum of what packs it
                    pass
                return
            size, content = info.size, archive.extractfile(info) if info.isreg() else None
            bounded.allow(size + _HEADER_BYTES)
            yield Member(info.name, info.isdir(), _tar_problem(info), _reader(content))


def _tar_problem(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return "a link"
    if info.issparse():
        return "a sparse file"
    return None if info.isreg() or info.isdir() else "a device, pipe or other special file"


def _reader(content: IO[bytes] | None) -> Callable[[], Iterator[bytes]]:
    def blocks() -> Iterator[bytes]:
        while content is not None and (block := content.read(BLOCK_BYTES)):
            yield block

    return blocks


def _zip_members(stream: IO[bytes], max_members: int) -> Iterator[Member]:
    _check_directory(stream, max_members)
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            name, problem = _zip_name(info), _zip_problem(info)

            def blocks(info: zipfile.ZipInfo = info) -> Iterator[bytes]:
                if info.header_offset < 0:
                    raise UnreadableArchiveError("damaged: a member before the archive's beginning")
                with archive.open(info) as content:
                    yield from _reader(content)()

            yield Member(name, info.is_dir(), problem, blocks)


def _check_directory(stream: IO[bytes], max_members: int) -> None:
    """Look at the size of a zip's directory before zipfile reads all of it at once.

    Source: PKWARE's APPNOTE, 4.3.12 to 4.3.16.
    """
    end = getattr(zipfile, "_EndRecData", lambda _: None)(stream)
    if end is not None and end[5] > max_members * _ENTRY_BYTES:
        raise UnreadableArchiveError(f"a directory of {end[5]} bytes")


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a name as it was stored; zipfile cuts it at NUL, and takes it for DOS's letters."""
    name = info.orig_filename
    if info.flag_bits & 0x800:
        return name
    return name.encode("cp437", errors="surrogateescape").decode(errors="surrogateescape")


def _zip_problem(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "a compression other than deflate"
    if kind == stat.S_IFLNK:
        return "a link"
    plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
    return None if plain else "a device, pipe or other special file"


def require_file(path: Path) -> None:
    """Check that an archive is there.

    Raises:
        DataError: It is not.
    """
    if not path.is_file():
        raise DataError(f"Expected an archive at {path}; found no file. Check the path.")
