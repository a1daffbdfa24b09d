"""Registering one model: a run, a version of it, and the decision who is champion.

A registration that was killed is gone on with: run, logged model and version are looked up by what
they hold before they are made.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry import history, tracking, versions
from agetf_pipeline.registry.gates import Figures
from agetf_pipeline.registry.promotion import BY_HAND, Decision

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

Log = Callable[["MlflowClient", str], None]
Judge = Callable[["MlflowClient", "ModelVersion | None"], tuple[Decision, str | None]]
"""What the gates decide beside a champion, and the version that was compared with."""


@dataclass(frozen=True)
class Candidate:
    """What is registered.

    Attributes:
        model: Name of the registered model.
        description: Of the registered model, where it is new.
        experiment: Whose run it gets.
        run_name: Name of the run.
        identity: Of the run: the same identity is the same run.
        sha256: Of the weights: the same weights are the same version.
        synthetic: Whether it was measured on drawn faces.
        trained_on: `synthetic`, or words for photographs, as its weights say; empty: they do not.
        figures: Figures of metrics.json that go with it.
        key_figures: Names of those that a list of versions shows.
    """

    model: str
    description: str
    experiment: str
    run_name: str
    identity: str
    sha256: str
    synthetic: bool
    trained_on: str
    figures: Figures
    key_figures: tuple[str, ...]


@dataclass(frozen=True)
class Registered:
    """What came of it: the version, whether it was made now, and who is champion why."""

    model: str
    version: str
    created: bool
    champion: bool
    decision: Decision

    @property
    def uri(self) -> str:
        """The version as MLflow names it."""
        return f"models:/{self.model}/{self.version}"

    def as_dict(self) -> dict[str, Any]:
        """Return the record for registration.json."""
        return {
            "model": self.uri,
            "version": self.version,
            "champion": self.champion,
            "reasons": list(self.decision.reasons),
            "gates": [gate.as_dict() for gate in self.decision.gates],
        }


def register(
    candidate: Candidate,
    workspace: Workspace,
    tracking_uri: str,
    log: Log,
    log_model: Callable[[str], str],
    judge: Judge,
) -> Registered:
    """Register a model once, and make it the champion where the gates let it.

    Args:
        candidate: What is registered.
        workspace: The workspace.
        tracking_uri: The registry.
        log: Logs parameters, figures and files in a run; may be repeated.
        log_model: Logs the model in a run; returns its URI.
        judge: Decides beside the champion; called under the lock.

    Raises:
        StageError: MLflow fails. Nothing is half done that the same call does not finish.
    """
    model = candidate.model
    with tracking.connected(tracking_uri) as client:
        with history.registry_lock(workspace, tracking_uri):
            # The first call makes the tables, too.
            experiment = tracking.experiment_id(client, candidate.experiment, workspace)
            versions.ensure_model(client, model, candidate.description)
        version = versions.find_version(client, model, candidate.sha256)
        if version is None or not version.run_id:
            run_id = tracking.resume_or_start_run(
                client, experiment, candidate.run_name, candidate.identity,
                {"agetf.synthetic": str(candidate.synthetic).lower()},
            )  # fmt: skip
        else:
            # Known weights, measured anew: the run that made them takes the new figures.
            run_id = str(version.run_id)
        tracking.log_metrics(client, run_id, _values(candidate.figures))
        log(client, run_id)
        model_uri = "" if version is not None else (
            tracking.find_logged_model(client, experiment, run_id) or log_model(run_id)
        )  # fmt: skip
        with history.registry_lock(workspace, tracking_uri):
            version = versions.find_version(client, model, candidate.sha256)
            created = version is None
            if version is None:
                version = versions.create_version(
                    client, model, model_uri, run_id, _tags(candidate)
                )
            version = versions.drop_repeats(client, model, version)
            registered = _decide(client, candidate, version, created, judge)
        client.set_terminated(run_id)
    return registered


def _decide(
    client: "MlflowClient", candidate: Candidate, version: "ModelVersion", created: bool,
    judge: Judge,
) -> Registered:  # fmt: skip
    """Set the aliases as the gates have it and write down why; under the lock."""
    model, number = candidate.model, str(version.version)
    tags = {
        versions.FIGURES_TAG: _key_figures(candidate),
        versions.TRAINED_ON_TAG: candidate.trained_on,
    }
    versions.set_tags(client, model, number, {key: value for key, value in tags.items() if value})
    champion_number = history.settle(client, model)
    client.set_registered_model_alias(model, versions.CHALLENGER, number)
    if champion_number == number:
        found = versions.read_findings(version)
        decision = replace(found, reasons=("it is the champion already", *found.reasons))
        return Registered(model, number, created, True, decision)
    champion = None if champion_number is None else client.get_model_version(model, champion_number)
    decision, compared = judge(client, champion)
    rolled_back = version.tags.get(versions.ROLLED_BACK_TAG)
    if rolled_back is not None:
        # A rollback is somebody's decision: figures alone do not take it back.
        reasons = (f"it was rolled back ({rolled_back}); {BY_HAND}", *decision.reasons)
        decision = Decision(False, reasons, decision.gates)
    versions.write_findings(client, model, number, decision, compared)
    if decision.promote:
        history.promote(client, model, number, history.GATES, champion_number)
    else:
        versions.set_tags(
            client, model, number,
            {
                versions.DECISION_TAG: history.ROLLED_BACK if rolled_back else "not promoted",
                versions.DECIDED_AT_TAG: history.now(),
                versions.DECIDED_BY_TAG: history.GATES,
            },
        )  # fmt: skip
    return Registered(model, number, created, decision.promote, decision)


def _tags(candidate: Candidate) -> dict[str, str]:
    tags = {
        versions.WEIGHTS_TAG: candidate.sha256,
        versions.RUN_NAME_TAG: candidate.run_name,
        versions.TRAINED_ON_TAG: candidate.trained_on,
    }
    return {key: value for key, value in tags.items() if value}


def _values(figures: Figures) -> dict[str, float]:
    return {name: item["value"] for name, item in figures.items() if item["value"] is not None}


def _key_figures(candidate: Candidate) -> str:
    kept: dict[str, Mapping[str, Any]] = {
        name: {key: candidate.figures[name].get(key)
               for key in ("value", "low", "high", "n", "unit", "synthetic", "reason")}
        for name in candidate.key_figures
        if name in candidate.figures
    }  # fmt: skip
    return json.dumps(kept, ensure_ascii=False)
