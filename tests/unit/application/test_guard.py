"""The guard in front of the Dagster UI: what passes, what does not."""

import asyncio

import pytest

from jobs.guard import OriginGuard


async def _app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def status(method="POST", path="/graphql", query=b"", kind="http", **headers) -> int | str:
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }
    asyncio.run(OriginGuard(_app)(scope, receive, send))
    return sent[0].get("status", sent[0]["type"])


def test_the_page_itself_may_ask():
    assert status(host="127.0.0.1:3000") == 200
    assert status(host="localhost:3000", origin="http://localhost:3000") == 200
    assert status(host="[::1]:3000", sec_fetch_site="same-origin") == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "attacker.example"},
        {"host": "127.0.0.1:3000", "origin": "http://attacker.example"},
        {"host": "127.0.0.1:3000", "origin": "http://127.0.0.1:4000"},
        {"host": "127.0.0.1:3000", "origin": "null"},
        {"host": "127.0.0.1:3000", "sec_fetch_site": "cross-site"},
        {},
    ],
)
def test_others_may_not(headers):
    assert status(**headers) == 403
    assert status(kind="websocket", **headers) == "websocket.close"


def test_queries_over_get_are_refused():
    assert status("GET", "/graphql", b"query=mutation%7B%7D", host="127.0.0.1") == 403
    assert status("GET", "/graphql", b"", host="127.0.0.1") == 200
    assert status("GET", "/locations", b"q=x", host="127.0.0.1") == 200
