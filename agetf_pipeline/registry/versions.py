"""Versions of a registered model: one per weights file; aliases for the latest and the best."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.config.register import GatesConfig
from agetf_pipeline.registry.promotion import Decision, decide

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

CHALLENGER, CHAMPION = "challenger", "champion"
WEIGHTS_TAG = "agetf.weights_sha256"
JUDGES_TAG = "agetf.evaluators"
COMPARED_TAG = "agetf.compared_with_version"


@dataclass(frozen=True)
class Registered:
    """A registered version: its number, whether it was made now, and the promotion decision."""

    version: str
    created: bool
    decision: Decision


def find_version(client: "MlflowClient", model_name: str, sha256: str) -> "ModelVersion | None":
    """Return the version that holds these weights, the oldest if there are several, or None."""
    versions = client.search_model_versions(f"name = '{model_name}'")
    matching = [item for item in versions if item.tags.get(WEIGHTS_TAG) == sha256]
    return min(matching, key=lambda item: int(item.version), default=None)


def find_alias(client: "MlflowClient", model_name: str, alias: str) -> "ModelVersion | None":
    """Return the version that an alias names, or None where nobody set it."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model_name, alias)
    except MlflowException as error:
        # A missing alias is reported as an invalid parameter, a missing model as absent.
        if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            return None
        raise


def get_version(client: "MlflowClient", model_name: str, number: str) -> "ModelVersion | None":
    """Return a version by its number, or None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(model_name, number)
    except MlflowException as error:
        # A number that cannot be one is reported as an invalid parameter.
        if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            return None
        raise


def ensure_model(client: "MlflowClient", model_name: str) -> None:
    """Make the registered model if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            model_name, description="Renders a face at any age from 0 to 100 years."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def create_version(
    client: "MlflowClient", model_name: str, model_uri: str, run_id: str, tags: dict[str, str]
) -> "ModelVersion":
    """Register a logged model as a new version, its tags set in the same step."""
    return client.create_model_version(model_name, model_uri, run_id=run_id, tags=tags)


def set_aliases(
    client: "MlflowClient",
    model_name: str,
    version: "ModelVersion",
    metrics: Mapping[str, float],
    judges: str,
    gates: GatesConfig,
) -> Decision:
    """Make a version the challenger, and the champion where the gates let it; write down why.

    Args:
        client: Of the registry.
        model_name: The registered model.
        version: The new version.
        metrics: Its figures.
        judges: Which evaluators measured them.
        gates: How much worse than the champion it may be.
    """
    number = str(version.version)
    client.set_registered_model_alias(model_name, CHALLENGER, number)
    champion = find_alias(client, model_name, CHAMPION)
    if champion is not None and str(champion.version) == number:
        decision = Decision(True, ("it is the champion already",))
    else:
        decision = decide(
            metrics,
            None if champion is None else _metrics_of(client, champion),
            gates,
            champion is None or champion.tags.get(JUDGES_TAG) == judges,
        )
        if decision.promote:
            client.set_registered_model_alias(model_name, CHAMPION, number)
        against = "none" if champion is None else str(champion.version)
        verdict = "promoted" if decision.promote else "not promoted"
        for key, value in (("decision", verdict), ("compared_with_version", against),
                           ("reasons", "; ".join(decision.reasons))):  # fmt: skip
            client.set_model_version_tag(model_name, number, f"agetf.{key}", value)
        text = f"{verdict.capitalize()}: {'; '.join(decision.reasons)}."
        client.update_model_version(model_name, number, description=text)
    client.set_model_version_tag(model_name, number, JUDGES_TAG, judges)
    return decision


def _metrics_of(client: "MlflowClient", version: "ModelVersion") -> dict[str, float]:
    return dict(client.get_run(version.run_id).data.metrics) if version.run_id else {}


def weights_in(folder: Path) -> Path | None:
    """Return the weights file inside a downloaded model, None where there is not exactly one."""
    files = sorted(folder.rglob("artifacts/*.safetensors"))
    return files[0] if len(files) == 1 else None
