"""The environment of somebody who only loads a registered model: its requirements and no more.

A child process sees no distribution but those that a model lists, and what these need in turn: not
Dagster, and of `agetf_pipeline` only the copy that was logged with the model.
"""

import os
import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

_GATE = '''
import sys

_HIDDEN = frozenset({hidden!r})


class _Gate:
    """Finds what the finders before it found, but for what is hidden."""

    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in _HIDDEN:
            return None
        specs = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in specs if spec is not None), None)

    def find_distributions(self, *arguments):
        for finder in self.finders:
            yield from getattr(finder, "find_distributions", lambda *_: ())(*arguments)

    def invalidate_caches(self):
        pass


_FINDERS = [f for f in sys.meta_path if not getattr(f, "__module__", "").startswith("__editable__")]
sys.meta_path[:] = [_Gate([f for f in _FINDERS if hasattr(f, "find_spec")])]
'''


def only_with(requirements: list[str], folder: Path, tracking_uri: str) -> dict[str, str]:
    """Return the environment variables of a child process that has these requirements alone.

    Args:
        requirements: As pip takes them.
        folder: Where a start file for Python is written.
        tracking_uri: Tracking server and registry.
    """
    wanted = closure(requirements)
    hidden = [
        module
        for module, owners in metadata.packages_distributions().items()
        if module != "agetf_pipeline" and not {_canonical(name) for name in owners} & wanted
    ]
    assert "dagster" in hidden
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_GATE.format(hidden=sorted(hidden)))
    return {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_REGISTRY_URI": tracking_uri,
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }


def closure(requirements: list[str]) -> set[str]:
    """Return the canonical names of distributions that pip would have installed."""
    found: set[str] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    done = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = _canonical(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in done:
                continue
            done.add((name, wanted))
            try:
                needs = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue  # overridden, as one build of OpenCV stands for the other
            found.add(name)
            waiting += [(Requirement(text), wanted) for text in needs]
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
