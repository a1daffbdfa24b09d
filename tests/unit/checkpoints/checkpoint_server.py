"""A small file server on 127.0.0.1 for the tests: with ranges or without, and made to break."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What the server holds, how it behaves, and what it was asked.

    Attributes:
        files: Content by name.
        ranges: Whether it answers Range.
        etag: Sent with every file; empty for none.
        breaks: For each request to come, after how many bytes the connection is cut.
        status: Answer every request with this code, if it is not 0.
        requests: Headers of the requests so far.
    """

    files: dict[str, bytes]
    ranges: bool = True
    etag: str = '"one"'
    breaks: list[int] = field(default_factory=list)
    status: int = 0
    requests: list[dict[str, str]] = field(default_factory=list)
    base: str = ""

    def url(self, name: str) -> str:
        return f"{self.base}/{name}"


class _Handler(BaseHTTPRequestHandler):
    served: Served

    def do_GET(self):
        served = self.served
        served.requests.append(dict(self.headers))
        if served.status:
            return self.send_error(served.status)
        data = served.files.get(self.path.lstrip("/"))
        if data is None:
            return self.send_error(404)
        start = self._start(len(data))
        if start is not None and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        body = data[start or 0 :]
        self.send_header("Content-Length", str(len(body)))
        if served.etag:
            self.send_header("ETag", served.etag)
        self.end_headers()
        if served.breaks:
            body = body[: served.breaks.pop(0)]
            self.close_connection = True
        self.wfile.write(body)
        return None

    def _start(self, size: int) -> int | None:
        wanted = self.headers.get("Range", "")
        if not self.served.ranges or not wanted:
            return None
        if self.headers.get("If-Range") not in (None, self.served.etag):
            return None  # the file changed: the whole of it
        return int(wanted.removeprefix("bytes=").rstrip("-"))

    def log_message(self, *_):
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Say nothing: a client that refuses a file hangs up."""


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    handler = type("Handler", (_Handler,), {"served": served})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    served.base = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
