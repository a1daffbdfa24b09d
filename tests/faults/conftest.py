"""What the kill tests share."""

import os
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _server_finds_the_tests() -> Iterator[None]:
    """The server of the forks imports the preloaded module before it knows this process's path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        yield
