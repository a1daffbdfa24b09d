"""Which registered model a new one is compared with."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class Reference:
    """A registered version and its weights on this machine.

    Attributes:
        model: Name of the registered model.
        version: Its version.
        sha256: Of its weights.
        weights: A file that holds them.
    """

    model: str
    version: str
    sha256: str
    weights: Path

    @property
    def identity(self) -> str:
        """What it is in one text: the same weights under another number are another version."""
        return _identity(self.model, self.version, self.sha256)


def champion_to_compare(
    config: PipelineConfig, workspace: Workspace, sha256: str
) -> Reference | None:
    """Return the version that evaluation compares weights with.

    The champion; for the champion itself the version that it was compared with when it was
    registered, so that evaluating again gives the same report.

    Args:
        config: Names the model and the registry.
        workspace: Whose registry is asked where the config names none.
        sha256: Of the weights that are evaluated.

    Returns:
        None where there is no registry yet, no champion, or nothing the champion was compared
        with. mlflow is not imported where there is no registry yet.

    Raises:
        WeightsError: The weights to compare with cannot be had, or are not what was registered.
    """
    settings = config.register_model
    uri = _registry_of(config, workspace)
    if uri is None:
        return None
    from agetf_pipeline.registry.tracking import connected
    from agetf_pipeline.registry.versions import WEIGHTS_TAG

    with connected(uri) as client:
        version = _to_compare(client, settings.model_name, sha256)
        if version is None:
            return None
        number, known = str(version.version), version.tags.get(WEIGHTS_TAG)
    return Reference(
        settings.model_name, number, *_weights(settings.model_name, number, known, workspace, uri)
    )


def identity_to_compare(config: PipelineConfig, workspace: Workspace, sha256: str) -> str | None:
    """Return the identity of what `champion_to_compare` returns; fetches and reads no weights.

    Raises:
        WeightsError: The version that the champion was compared with is gone.
    """
    uri = _registry_of(config, workspace)
    if uri is None:
        return None
    from agetf_pipeline.registry.tracking import connected
    from agetf_pipeline.registry.versions import WEIGHTS_TAG

    with connected(uri) as client:
        model = config.register_model.model_name
        version = _to_compare(client, model, sha256)
        if version is None:
            return None
        return _identity(model, version.version, version.tags.get(WEIGHTS_TAG, "not recorded"))


def _identity(model: str, version: object, sha256: str) -> str:
    return f"{model}/{version} {sha256}"


def run_of_champion(config: PipelineConfig, workspace: Workspace) -> str | None:
    """Return the name of the training run that the champion came from, as far as it is known."""
    uri = _registry_of(config, workspace)
    if uri is None:
        return None
    from agetf_pipeline.registry.tracking import connected
    from agetf_pipeline.registry.versions import CHAMPION, RUN_NAME_TAG, find_alias

    with connected(uri) as client:
        champion = find_alias(client, config.register_model.model_name, CHAMPION)
        return None if champion is None else champion.tags.get(RUN_NAME_TAG)


def _registry_of(config: PipelineConfig, workspace: Workspace) -> str | None:
    """Return the registry's URI; None where there is none yet, without importing mlflow."""
    configured = config.register_model.tracking_uri
    if configured is None and not (workspace.root / "mlflow.db").is_file():
        return None
    from agetf_pipeline.registry.tracking import tracking_uri_of

    return tracking_uri_of(workspace, configured)


def _to_compare(client: "MlflowClient", model: str, sha256: str) -> "ModelVersion | None":
    from agetf_pipeline.registry.versions import (
        CHAMPION,
        COMPARED_TAG,
        WEIGHTS_TAG,
        find_alias,
        get_version,
    )

    champion = find_alias(client, model, CHAMPION)
    if champion is None or champion.tags.get(WEIGHTS_TAG) != sha256:
        return champion
    number = champion.tags.get(COMPARED_TAG, "none")
    if number == "none":
        return None
    former = get_version(client, model, number)
    if former is None:
        raise WeightsError(
            f"Expected version {number} of {model}, which the champion (version "
            f"{champion.version}) was compared with; found that it was deleted. Evaluate with "
            "evaluate.compare_with_champion=false."
        )
    return former


def _weights(
    model: str, number: str, known: str | None, workspace: Workspace, uri: str
) -> tuple[str, Path]:
    """Return sha256 and file of a version's weights, the first checked against its tag."""
    from agetf_pipeline.registry.resolving import resolve_model

    advice = (
        "Restore the registry's artifacts, choose another champion (agetf registry promote), or "
        "evaluate with evaluate.compare_with_champion=false."
    )
    try:
        weights = resolve_model(f"models:/{model}/{number}", workspace, uri)
    except (WeightsError, OSError) as error:
        raise WeightsError(
            f"Expected the weights of {model} version {number} to compare with; found: {error} "
            f"{advice}"
        ) from error
    found = hash_file(weights)
    if known is not None and found != known:
        raise WeightsError(
            f"Expected the weights of {model} version {number} to have sha256 {known}; found "
            f"{found} in {weights}. {advice}"
        )
    return found, weights
