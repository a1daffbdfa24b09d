"""Versions of a registered model: one per weights file; what is written on them, and aliases."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.registry.gates import Gate
from agetf_pipeline.registry.promotion import Compared, Decision

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

CHALLENGER, CHAMPION = "challenger", "champion"
WEIGHTS_TAG = "agetf.weights_sha256"
RUN_NAME_TAG = "agetf.run_name"
TRAINED_ON_TAG = "agetf.trained_on"
FIGURES_TAG = "agetf.figures"
DECISION_TAG = "agetf.decision"
DECIDED_AT_TAG = "agetf.decided_at"
DECIDED_BY_TAG = "agetf.decided_by"
REASONS_TAG = "agetf.reasons"
GATES_TAG = "agetf.gates"
COMPARED_TAG = "agetf.compared_with_version"
PREVIOUS_TAG = "agetf.previous_champion"
ROLLED_BACK_TAG = "agetf.rolled_back"

_MAX_DESCRIPTION = 5000
"""What MLflow's tables hold."""


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


def ensure_model(client: "MlflowClient", model_name: str, description: str) -> None:
    """Make the registered model if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model_name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def create_version(
    client: "MlflowClient", model_name: str, model_uri: str, run_id: str, tags: dict[str, str]
) -> "ModelVersion":
    """Register a logged model as a new version, its tags set in the same step."""
    # A server refuses the URI of a logged model without its id beside it.
    model_id = model_uri.removeprefix("models:/") if model_uri.startswith("models:/m-") else None
    return client.create_model_version(
        model_name, model_uri, run_id=run_id, tags=tags, model_id=model_id
    )


def drop_repeats(
    client: "MlflowClient", model_name: str, version: "ModelVersion"
) -> "ModelVersion":
    """Delete what was made twice of one version; return the one that stays, the oldest.

    A server that dies after it made a version, and before it said so, is asked again by MLflow's
    client once it is back. Nobody knows of such a repeat yet: it is of the same run and weights,
    and no alias names it. To be called under the registry's lock.
    """
    sha256 = version.tags.get(WEIGHTS_TAG)
    if not sha256 or not version.run_id:
        return version
    found = [
        item
        for item in client.search_model_versions(f"name = '{model_name}'")
        if item.tags.get(WEIGHTS_TAG) == sha256 and item.run_id == version.run_id
    ]
    first = min(found, key=lambda item: int(item.version), default=version)
    named = {str(number) for number in client.get_registered_model(model_name).aliases.values()}
    for item in found:
        if item.version != first.version and str(item.version) not in named:
            client.delete_model_version(model_name, str(item.version))
    return first


def write_findings(
    client: "MlflowClient", model_name: str, number: str, decision: Decision, compared: str | None
) -> None:
    """Write what the gates found on a version: sentences and, for machines, JSON.

    Args:
        client: Of the registry.
        model_name: The registered model.
        number: The version.
        decision: What the gates found.
        compared: The version that it was compared with; None where there was none.
    """
    reasons = "; ".join(decision.reasons)
    gates = json.dumps([gate.as_dict() for gate in decision.gates], ensure_ascii=False)
    tags = {COMPARED_TAG: compared or "none", REASONS_TAG: reasons, GATES_TAG: gates}
    set_tags(client, model_name, number, tags)
    text = f"Gates: {'promoted' if decision.promote else 'not promoted'}: {reasons}."
    client.update_model_version(model_name, number, description=text[:_MAX_DESCRIPTION])


def read_findings(version: "ModelVersion") -> Decision:
    """Return what was found when a version was judged; it stands as promoted."""
    reasons = version.tags.get(REASONS_TAG)
    gates = json.loads(version.tags.get(GATES_TAG, "[]"))
    return Decision(True, (reasons,) if reasons else (), tuple(Gate(**gate) for gate in gates))


def as_compared(version: "ModelVersion | None") -> Compared | None:
    """Return what a decision has to know of a champion; None where there is none."""
    if version is None:
        return None
    tags = version.tags
    return Compared(str(version.version), tags.get(WEIGHTS_TAG, ""), tags.get(TRAINED_ON_TAG, ""))


def alias_state(client: "MlflowClient", model_name: str) -> dict[str, str]:
    """Return which version, of which weights, challenger and champion are; absent where unset."""
    found = {alias: find_alias(client, model_name, alias) for alias in (CHALLENGER, CHAMPION)}
    return {
        alias: f"{version.version} {version.tags.get(WEIGHTS_TAG, '')}".strip()
        for alias, version in found.items()
        if version is not None
    }


def set_tags(client: "MlflowClient", model_name: str, number: str, tags: Mapping[str, str]) -> None:
    """Set tags of a version."""
    for key, value in tags.items():
        client.set_model_version_tag(model_name, number, key, value)


def describe(client: "MlflowClient", model_name: str, number: str, text: str) -> None:
    """Put a sentence before the version's description, where it is not there already."""
    former = client.get_model_version(model_name, number).description or ""
    if not former.startswith(text):
        whole = f"{text}\n{former}".strip()[:_MAX_DESCRIPTION]
        client.update_model_version(model_name, number, description=whole)


def weights_in(folder: Path) -> Path | None:
    """Return the weights file inside a downloaded model, None where there is not exactly one."""
    files = sorted(folder.rglob("artifacts/*.safetensors"))
    return files[0] if len(files) == 1 else None
