"""Children that tests start: forked from one server that has loaded what takes long.

There is one such server in a test run, whichever tests ask for it: it loads what all of them name.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import forkserver

import pytest

KILLED = -signal.SIGKILL
FORKS = multiprocessing.get_context("forkserver")

_preloaded: list[str] = []


def preload(module: str) -> None:
    """Have the server load a module; to be called when a test module is imported."""
    _preloaded.append(module)
    FORKS.set_forkserver_preload(_preloaded)


def ensure_server() -> None:
    """Start the server, unless it runs, so that it finds what it is to load."""
    # It imports before it is told this process's path.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        forkserver.ensure_running()


def in_child(function: Callable, *arguments: object, kill_after_s: float | None = None) -> int:
    """Run in a process of its own; return 0, or KILLED where it died of SIGKILL."""
    ensure_server()
    child = FORKS.Process(target=function, args=arguments)
    child.start()
    child.join(kill_after_s)
    if child.is_alive():
        child.kill()
        child.join()
    assert child.exitcode in (0, KILLED)
    return child.exitcode
