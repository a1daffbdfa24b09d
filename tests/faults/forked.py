"""Children that a kill test starts: forked from a server that has loaded what takes long."""

import multiprocessing
import signal
from collections.abc import Callable

KILLED = -signal.SIGKILL

_forks = multiprocessing.get_context("forkserver")


def preload(module: str) -> None:
    """Have the server load a module, so that the time before a kill is time at work."""
    _forks.set_forkserver_preload([module])


def in_child(function: Callable, *arguments: object, kill_after_s: float | None = None) -> int:
    """Run in a process of its own; return 0, or KILLED where it died of SIGKILL."""
    child = _forks.Process(target=function, args=arguments)
    child.start()
    child.join(kill_after_s)
    if child.is_alive():
        child.kill()
        child.join()
    assert child.exitcode in (0, KILLED)
    return child.exitcode
