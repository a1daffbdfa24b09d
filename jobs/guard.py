"""Keeps other web pages away from the Dagster UI.

Dagster's webserver runs mutations for any Origin and Host, and over GET: a page open in the same
browser could launch runs. This refuses foreign hosts, foreign origins, and queries over GET.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class OriginGuard:
    """ASGI middleware around the webserver.

    Args:
        app: The webserver.
        hosts: Host names, without ports, under which it may be reached.
    """

    def __init__(self, app: App, hosts: Iterable[str] = LOCAL_HOSTS) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with the reason why not."""
        reason = self._refusal(scope) if scope["type"] in {"http", "websocket"} else None
        if reason is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": reason.encode()})

    def _refusal(self, scope: Scope) -> str | None:
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        host = _host_of(f"//{headers.get('host', '')}")
        if host not in self._hosts:
            return f"Expected one of the hosts {sorted(self._hosts)}; found {host!r}."
        origin = headers.get("origin")
        if origin is not None and origin != f"{urlsplit(origin).scheme}://{headers['host']}":
            return f"Expected a request from this page; found origin {origin!r}."
        if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return "Expected a request from this page; it came from another site."
        query = scope.get("query_string", b"").decode().lower()
        if scope.get("method") == "GET" and scope["path"].endswith("/graphql") and query:
            return "Expected GraphQL over POST; GET is refused, since any page can send it."
        return None


def _host_of(address: str) -> str:
    name = urlsplit(address).hostname or ""
    return f"[{name}]" if ":" in name else name
