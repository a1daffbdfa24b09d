"""Loading Great Expectations without what a check of a table never uses.

Its import brings in a charting library (Altair), SciPy's statistics and, where they are installed,
SQLAlchemy and Google's client for cloud tables: half of the seconds that it takes. None of them
takes part in comparing a column of a data frame with a limit.
"""

import gc
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_ON_FIRST_USE = ("altair", "scipy.stats")
_OPTIONAL = ("sqlalchemy", "google.oauth2")
"""Packages that Great Expectations does without where they are not installed."""


class OnFirstUse(ModuleType):
    """Stands for a module until somebody asks it for something; then the module is imported."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def load_great_expectations() -> ModuleType:
    """Import Great Expectations, with what it does not need here left for later or left out.

    Measured on one core of a busy machine: 7.5 CPU-seconds become 3.0 where Python has no compiled
    files yet, and 2.8 become 1.3 where it has.
    """
    # Set before the import: the library reports its use over the network otherwise.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with imported_on_first_use(*_ON_FIRST_USE), _left_out(*_OPTIONAL), _without_collection():
        gx = importlib.import_module("great_expectations")
    # It sets this logger to INFO itself, and would tell of a temporary folder on every check.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    return gx


@contextmanager
def imported_on_first_use(*names: str) -> Iterator[None]:
    """Let imports of these modules, within the block, cost nothing until the modules are used.

    Modules that are loaded already, or not installed, are left alone. After the block the names are
    free again: whoever imports them then gets the modules themselves.
    """
    stand_ins = {}
    for name in names:
        if name not in sys.modules and (spec := importlib.util.find_spec(name)) is not None:
            stand_ins[name] = OnFirstUse(name)
            stand_ins[name].__spec__ = spec
    parents = {name: _parent_of(name) for name in stand_ins}
    for name, stand_in in stand_ins.items():
        sys.modules[name] = stand_in
        if (parent := parents[name]) is not None:
            setattr(parent, name.rpartition(".")[2], stand_in)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
            parent, attribute = parents[name], name.rpartition(".")[2]
            if parent is not None and vars(parent).get(attribute) is stand_in:
                delattr(parent, attribute)


@contextmanager
def _left_out(*names: str) -> Iterator[None]:
    """Let packages look as if they were not installed, within the block, unless they are loaded."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if name in sys.modules and sys.modules[name] is None:
                del sys.modules[name]


@contextmanager
def _without_collection() -> Iterator[None]:
    """Look for no garbage within the block: what an import makes stays, and looking takes a tenth
    of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _parent_of(name: str) -> ModuleType | None:
    parent = name.rpartition(".")[0]
    return importlib.import_module(parent) if parent else None
