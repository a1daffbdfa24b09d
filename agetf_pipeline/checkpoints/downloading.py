"""One file over HTTP: resumed where it stopped, never visible before it is whole.

The bytes go into `<name>.part`; `<name>.part.json` keeps the server's ETag or date, so that a file
that changed on the server between two tries is not sewn together from both.
"""

import email.message
import errno
import http.client
import json
import logging
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.storage_errors import describe

_LOGGER = logging.getLogger(__name__)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_CHUNK_BYTES = 1 << 20
_MB = 1_000_000
_AGENT = "agetf-pipeline (checkpoint download)"


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and how often to try again.

    Attributes:
        timeout_s: For the connection, and for every read.
        num_tries: Tries in a row that may bring no byte.
        pause_s: Before the second try; doubled before each further one.
    """

    timeout_s: float = 30.0
    num_tries: int = 4
    pause_s: float = 1.0


class UnreachableError(WeightsError):
    """The server did not give the file: no network, no such file, or no rest of it."""


class _BrokenOffError(Exception):
    """The transfer broke; what came is kept."""


def download(
    url: str, part: Path, size_bytes: int | None, patience: Patience | None = None
) -> bool:
    """Bring `part` to the whole content of `url`, going on from what it holds.

    Args:
        url: http(s).
        part: File to fill; its folder exists.
        size_bytes: Published size; a server that announces another is refused before the transfer.
        patience: Timeouts and tries.

    Returns:
        Whether bytes of an earlier run were kept.

    Raises:
        UnreachableError: There is no network or no such file; what came stays in `part`.
        WeightsError: The server announces another size.
        StorageError: There is no room for it.
    """
    patience = patience or Patience()
    resumed = part.is_file() and part.stat().st_size > 0
    failures = 0
    while True:
        before = _size(part)
        try:
            kept = _transfer(url, part, size_bytes, patience)
            return resumed and kept
        except (_BrokenOffError, OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise describe(part, error.errno) from error
            reason = _reason(error)
            if reason is None:
                raise UnreachableError(_message(url, error)) from error
            failures = 0 if _size(part) > before else failures + 1
            if failures >= patience.num_tries:
                raise UnreachableError(_message(url, error)) from error
            pause_s = patience.pause_s * 2 ** max(0, failures - 1)
            _LOGGER.warning("%s: %s; trying again in %.0f s", part.stem, reason, pause_s)
            time.sleep(pause_s)


def discard(part: Path) -> None:
    """Remove an unfinished download."""
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def part_of(target: Path) -> Path:
    """Return where an unfinished download of `target` lies."""
    return target.with_name(f"{target.name}.part")


def _transfer(url: str, part: Path, size_bytes: int | None, patience: Patience) -> bool:
    """One request. Returns whether earlier bytes were kept; raises when it breaks."""
    offset, validator = _size(part), _validator(part, url)
    if offset and validator is None:
        offset = 0  # nothing says that the server still has the same file
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": str(validator)}
    try:
        response = _opener().open(
            urllib.request.Request(url, headers=headers), timeout=patience.timeout_s
        )
    except urllib.error.HTTPError as error:
        if error.code == 416 and offset:  # nothing after what we have, or a shorter file
            if _total_of(error.headers) == offset:
                return True
            discard(part)
            raise _BrokenOffError("the server has a shorter file than was begun") from error
        raise
    with response:
        if response.status == 206 and _start_of(response.headers) != offset:
            discard(part)
            raise _BrokenOffError("the server answered with another part than asked for")
        kept = response.status == 206
        offset = offset if kept else 0
        total = _expected_total(response.headers, offset)
        if size_bytes is not None and total is not None and total != size_bytes:
            raise WeightsError(
                f"Expected {size_bytes} bytes at {url}; the server announces {total}. It has "
                "another file there, or a page in its place. Compare with the checkpoint's page."
            )
        _note(part, url, response.headers)
        _write(response, part, offset, total, size_bytes)
    done = _size(part)
    if total is not None and done != total:
        raise _BrokenOffError(f"the connection ended after {done} of {total} bytes")
    return kept


def _write(
    response: http.client.HTTPResponse,
    part: Path,
    offset: int,
    total: int | None,
    size_bytes: int | None,
) -> None:
    limit = size_bytes or total
    num_mb = None if limit is None else max(1, round((limit - offset) / _MB))
    note = f", from {offset / _MB:.0f} MB" if offset else ""
    done = shown = 0
    with (
        part.open("r+b" if offset else "wb") as stream,
        Progress(f"fetch {part.stem} (MB{note})", num_mb) as progress,
    ):
        stream.seek(offset)
        stream.truncate()
        while chunk := response.read(_CHUNK_BYTES):
            stream.write(chunk)
            done += len(chunk)
            progress.advance(done // _MB - shown)
            shown = done // _MB
            if limit is not None and offset + done > limit:
                raise WeightsError(
                    f"Expected {limit} bytes for {part.stem}; the server sends more. It has "
                    "another file there. Compare with the checkpoint's page."
                )


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise urllib.error.HTTPError(newurl, code, "redirect away from https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoDowngrade)


def _reason(error: Exception) -> str | None:
    """Why to try again; None where that is of no use."""
    if isinstance(error, urllib.error.HTTPError):
        return str(error) if error.code in (408, 425, 429) or error.code >= 500 else None
    # Of the other system errors none is the network's: a full disk, a folder without rights.
    network = (
        urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError,
        http.client.HTTPException, _BrokenOffError,
    )  # fmt: skip
    return str(error) if isinstance(error, network) else None


def _message(url: str, error: Exception) -> str:
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        detail = str(error.reason)
    return f"Expected to download {url}; the transfer failed: {detail}."


def _expected_total(headers: http.client.HTTPMessage, offset: int) -> int | None:
    length = headers.get("Content-Length")
    if length is None or not length.isdigit():
        return _total_of(headers)
    return offset + int(length)


def _total_of(headers: email.message.Message) -> int | None:
    """The size in `Content-Range: bytes 5-9/10`, or `bytes */10`."""
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _start_of(headers: http.client.HTTPMessage) -> int | None:
    start = headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdigit() else None


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _note(part: Path, url: str, headers: http.client.HTTPMessage) -> None:
    """Keep what tells one version of the server's file from another."""
    etag = headers.get("ETag", "")
    # A weak ETag may stand for other bytes: RFC 9110 does not take it in If-Range.
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    _notes(part).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def _validator(part: Path, url: str) -> str | None:
    """Return what the server's file was known by when the part was begun; None: unknown."""
    try:
        notes = json.loads(_notes(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return notes.get("validator") if notes.get("url") == url else None
