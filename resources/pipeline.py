"""The configuration and the workspace that a run works on."""

import os
from pathlib import Path

import dagster as dg

from agetf_pipeline.config import PipelineConfig, load_config, workspace_of
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.core.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG_VARIABLE = "AGETF_CONFIG"
DEFAULT_CONFIG = "configs/demo.yaml"
_NOT_FROM_A_RUN = ("runtime.allow_unverified_weights", "runtime.models_catalogue", "runtime=")
"""What decides which weights may be loaded is not for a browser to change."""


def deployed_config() -> str:
    """Return the config file that this deployment runs on, relative to the repository."""
    return os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG)


class PipelineResource(dg.ConfigurableResource):
    """A config file and overrides; no hyperparameter is repeated here.

    Attributes:
        config: A file of `configs/`, or the one that the deployment names in AGETF_CONFIG. Run
            configuration can come from a browser, so it cannot name any other file.
        overrides: `section.key=value`, as on the command line. They cannot move the workspace, nor
            let weights load that nothing vouches for, nor change addresses of shared storage.
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
        moved = [text for text in self.overrides if text.strip().startswith("workspace")]
        if moved:
            raise ConfigError(
                f"Expected overrides that leave the workspace where it is; found {moved}. "
                "Set workspace.root in the config file."
            )
        trusting = [text for text in self.overrides if text.strip().startswith(_NOT_FROM_A_RUN)]
        if trusting:
            raise ConfigError(
                f"Expected overrides that leave the verification of weights on; found {trusting}. "
                "Set it in the config file."
            )
        config = load_config(path, self.overrides)
        # With the credentials of the deployment, an address is a way in and a way out.
        if self.overrides and _addresses(config) != _addresses(load_config(path)):
            raise ConfigError(
                "Expected overrides that leave ingest.<corpus>.source_uri and release.publish_uri "
                "as they are; found others. Set them in the config file."
            )
        return config, workspace_of(config)


def _addresses(config: PipelineConfig) -> tuple[str | None, ...]:
    ingest = config.ingest
    return ingest.ffhq_aging.source_uri, ingest.caf.source_uri, config.release.publish_uri
