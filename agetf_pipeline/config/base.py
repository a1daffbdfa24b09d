"""The base of every section: frozen, and closed to keys that it does not know."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr
from pydantic_core import to_jsonable_python


class Section(BaseModel):
    """One section of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    # What `rooted` took relative paths from; None before.
    _root: Path | None = PrivateAttr(default=None)

    def settings(self) -> dict[str, Any]:
        """Return the section as JSON-compatible values, for fingerprints and run folders.

        Paths below the repository are given relative to it, so that a repository that moves, or is
        seen under another name from a container, keeps its fingerprints.
        """
        return to_jsonable_python(_portable(self.model_dump(), self._root))


def rooted(section: Section, root: Path) -> Section:
    """Return a copy whose relative paths, in it and below it, are taken from `root`, absolute.

    `~` stands for the home folder. Only paths that were given are changed: a default names a file
    that ships with the code, wherever the configuration lies.
    """
    changed = {
        name: _rooted_value(getattr(section, name), root) for name in section.model_fields_set
    }
    copy = section.model_copy(update=changed)
    copy._root = root
    return copy


def _rooted_value(value: Any, root: Path) -> Any:
    if isinstance(value, Section):
        return rooted(value, root)
    if isinstance(value, Path):
        # normpath, not resolve: a link such as data/raw -> /mnt/photographs keeps its name.
        return Path(os.path.normpath(root / value.expanduser()))
    if isinstance(value, Mapping):
        return {key: _rooted_value(item, root) for key, item in value.items()}
    return value


def _portable(value: Any, root: Path | None) -> Any:
    if isinstance(value, Path) and root is not None and value.is_relative_to(root):
        return value.relative_to(root).as_posix()
    if isinstance(value, Mapping):
        return {key: _portable(item, root) for key, item in value.items()}
    return value
