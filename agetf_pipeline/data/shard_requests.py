"""Which shards have been asked for: each is to be run once, and once more when it changes.

Whoever looks for new shards writes down what it is about to request, and hands out a token. Only
when that token comes back were the requests really taken; otherwise they are made again.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.hashing import hash_bytes
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace

_NUM_DIGITS = 12


@dataclass
class RequestBook:
    """What one orchestrator was asked to run: shard to the fingerprint it had then.

    Attributes:
        taken: Requests that were certainly taken, or that somebody else saw to.
        promised: Requests that were made under `token`, and perhaps not taken.
        token: Of the last promise.
    """

    taken: dict[str, str] = field(default_factory=dict)
    promised: dict[str, str] = field(default_factory=dict)
    token: str = ""

    def settle(self, token: str | None) -> None:
        """Count the last promise as taken if its token came back; drop it otherwise."""
        if self.token and token == self.token:
            self.taken |= self.promised
        self.promised = {}

    def take(self, shards: Mapping[str, str]) -> None:
        """Write down that these shards, by fingerprint, are seen to."""
        self.taken |= {name: print_[:_NUM_DIGITS] for name, print_ in shards.items()}

    def due(self, shards: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
        """Return the shards to request, by short fingerprint: new ones and changed ones.

        Args:
            shards: Complete shards by fingerprint.
            known: Those that exist as partitions; what does not, is new whatever was written here.
        """
        short = {name: print_[:_NUM_DIGITS] for name, print_ in shards.items()}
        return {
            name: print_
            for name, print_ in sorted(short.items())
            if name not in known or self.taken.get(name) != print_
        }

    def promise(self, requests: Mapping[str, str]) -> str:
        """Write down what is about to be requested; return the token."""
        self.promised = dict(requests)
        self.token = hash_bytes(repr((self.token, sorted(requests.items()))).encode())[:16]
        return self.token


@contextmanager
def request_book(workspace: Workspace, orchestrator: str) -> Iterator[RequestBook]:
    """Give the book of one orchestrator (a Dagster instance) and write it when the block succeeds.

    Args:
        workspace: Holds it, under `data/.state/shards/`.
        orchestrator: Its identity: two of them over one workspace each make their own requests.
    """
    identity = hash_bytes(orchestrator.encode())[:16]
    path = workspace.state / "shards" / f"requests-{identity}.json"
    lock = workspace.state / "locks" / "shard_requests.lock"
    with exclusive_lock(lock, "the requests of CAF shards"):
        book = RequestBook(**read_json(path)) if path.exists() else RequestBook()
        before = asdict(book)
        yield book
        if asdict(book) != before:
            write_json(path, asdict(book))
