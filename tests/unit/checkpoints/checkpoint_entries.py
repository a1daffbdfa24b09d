"""Catalogues made of a few bytes, for the tests."""

import hashlib

from agetf_pipeline.checkpoints.catalogue import Catalogue

DATA = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(DATA).hexdigest()


def file_entry(path: str = "net.pth", **values) -> dict:
    return {"path": path, "url": None, **values}


def published(path: str = "net.pth", **values) -> dict:
    """The entry of a file whose hash is known."""
    return file_entry(path, **{"sha256": SHA256, "hash_source": "this test", **values})


def catalogue_of(*files: dict, name: str = "net", **values) -> Catalogue:
    entry = {
        "title": "A network",
        "loader": "none",
        "source": "https://example.org/net",
        "by_hand": "the page https://example.org/net",
        "licence": {"name": "MIT"},
        "used_by": [],
        "files": list(files),
        **values,
    }
    return Catalogue.model_validate({"checkpoints": {name: entry}})
