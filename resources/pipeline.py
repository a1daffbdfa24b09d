"""The configuration and the workspace that a run works on."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from agetf_pipeline.config import PipelineConfig, load_config, workspace_of
from agetf_pipeline.config.base import Section
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.core.secrets import keep_out_of_logs
from agetf_pipeline.core.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG_VARIABLE = "AGETF_CONFIG"
DEFAULT_CONFIG = "configs/demo.yaml"
_VOUCHING = ("runtime.allow_unverified_weights", "runtime.models_catalogue")
"""What decides which weights may be loaded is not for a browser to change."""
_ADDRESSES = ("uri", "url")

Settings = dict[str, Any]

# Whatever process of Dagster loads the code location logs from here on, too.
keep_out_of_logs()


def deployed_config() -> str:
    """Return the config file that this deployment runs on, relative to the repository."""
    return os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG)


class PipelineResource(dg.ConfigurableResource):
    """A config file and overrides; no hyperparameter is repeated here.

    Attributes:
        config: A file of `configs/`, or the one that the deployment names in AGETF_CONFIG. Run
            configuration can come from a browser, so it cannot name any other file.
        overrides: `section.key=value`, as on the command line. They cannot move the workspace, nor
            let weights load that nothing vouches for, nor change an address (shared storage, the
            registry), nor name a path outside the workspace and the repository.
    """

    config: str = ""
    overrides: list[str] = []  # noqa: RUF012

    def load(self) -> tuple[PipelineConfig, Workspace]:
        """Return the resolved configuration and its workspace.

        Raises:
            ConfigError: The file is not one that a run may name, or its settings do not fit.
        """
        name = self.config or deployed_config()
        path = (REPOSITORY / name).resolve()
        named_by_deployment = name == deployed_config()
        if not named_by_deployment and path.parent != REPOSITORY / "configs":
            raise ConfigError(
                f"Expected a file of configs/ in the run's configuration; found {name!r}. "
                f"Set {CONFIG_VARIABLE} for the deployment to use a file elsewhere."
            )
        config = load_config(path, self.overrides)
        if self.overrides:
            before = load_config(path)
            _refuse_reaching_out(_settings(before), _settings(config), workspace_of(before))
        return config, workspace_of(config)


def _refuse_reaching_out(before: Settings, after: Settings, workspace: Workspace) -> None:
    """Refuse overrides of a run that lead out of the machine, or out of the project's folders.

    With the deployment's rights and credentials an address is a way in and a way out, and a path
    one to any file of the machine: what is in it comes back in tables, pictures and messages. What
    the settings have become is compared, not how the overrides are spelled.

    Args:
        before: Every setting without the overrides.
        after: With them.
        workspace: That of the settings before.

    Raises:
        ConfigError: The workspace, what vouches for weights, or an address was changed, or a path
            leads elsewhere.
    """
    changed = {
        name: after.get(name)
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }
    moved = [name for name in changed if name.startswith("workspace.")]
    if moved:
        raise ConfigError(
            f"Expected overrides that leave the workspace where it is; found others for {moved}. "
            "Set workspace.root in the config file."
        )
    trusting = [name for name in changed if name in _VOUCHING]
    if trusting:
        raise ConfigError(
            "Expected overrides that leave the verification of weights on; found others for "
            f"{trusting}. Set them in the config file."
        )
    addresses = [name for name in changed if re.split(r"[._]", name)[-1] in _ADDRESSES]
    if addresses:
        raise ConfigError(
            f"Expected overrides that leave addresses as they are; found others for {addresses}. "
            "Set them in the config file."
        )
    roots = [workspace.root.resolve(), REPOSITORY]
    outside = [
        name
        for name, value in changed.items()
        if (isinstance(value, Path) or (value and name.endswith("path")))
        and not any((workspace.root / value).resolve().is_relative_to(root) for root in roots)
    ]
    if outside:
        raise ConfigError(
            f"Expected paths in the workspace or the repository in the run's overrides; found "
            f"others for {outside}. Set them in the config file."
        )


def _settings(value: Any, prefix: str = "") -> Settings:
    """Return every setting by its dotted name, those that no fingerprint holds among them."""
    if isinstance(value, Section):
        items = [(name, getattr(value, name)) for name in type(value).model_fields]
    elif isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, item in items:
        found |= _settings(item, f"{prefix}.{name}".lstrip("."))
    return found
