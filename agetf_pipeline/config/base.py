"""The base of every section: frozen, and closed to keys that it does not know."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One section of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def settings(self) -> dict[str, Any]:
        """Return the section as JSON-compatible values, for fingerprints and run folders."""
        return self.model_dump(mode="json")
