"""Log the run in MLflow, register its model once, and decide who is champion."""

import json
from pathlib import Path

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.hashing import fingerprint, hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.stages.base import StageReport, report_path, run_once
from agetf_pipeline.stages.evaluate import model_path, run_folder

STAGE = "register"
CODE_VERSION = "1"

_ARTIFACT_SUFFIXES = {".html", ".json", ".md", ".png", ".yaml"}
_JUDGES = ("evaluation age estimator", "evaluation identity embedder")


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Register the configured run; running again registers nothing twice."""
    from agetf_pipeline.registry.tracking import tracking_uri_of

    weights, metrics = model_path(config, workspace), run_folder(config, workspace) / "metrics.json"
    for path, stage in ((weights, "train"), (metrics, "evaluate")):
        if not path.is_file():
            raise StageError(
                f"Expected {path} of run '{config.train.run_name}'; found nothing. "
                f"Run the stage {stage} first."
            )
    uri = tracking_uri_of(workspace, config.register_model.tracking_uri)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        # The database is gone: what the last report says of it no longer counts.
        report_path(workspace, STAGE).unlink(missing_ok=True)
    inputs = {"weights": hash_file(weights), "metrics": hash_file(metrics)}
    settings = {**config.register_model.settings(), "run_name": config.train.run_name}
    return run_once(
        workspace, STAGE, settings, CODE_VERSION, inputs,
        lambda: _register(config, workspace, weights, read_json(metrics), uri),
    )  # fmt: skip


def _register(
    config: PipelineConfig, workspace: Workspace, weights: Path, evaluation: dict, uri: str
) -> StageReport:
    from agetf_pipeline.registry import tracking, versions

    settings = config.register_model
    sha256 = hash_file(weights)
    judges = "+".join(evaluation["versions"].get(name, "none")[:12] for name in _JUDGES)
    figures = {
        name: item["value"]
        for name, item in evaluation["metrics"].items()
        if item["value"] is not None
    }
    with tracking.connected(uri) as client:
        experiment = tracking.experiment_id(client, settings.experiment, workspace)
        versions.ensure_model(client, settings.model_name)
        version = versions.find_version(client, settings.model_name, sha256)
        if version is None:
            run_id = _log_run(config, workspace, client, experiment, sha256, evaluation, figures)
            model_uri = _log_model(run_id, weights)
            tags = {
                versions.WEIGHTS_TAG: sha256,
                versions.JUDGES_TAG: judges,
                "agetf.run_name": config.train.run_name,
                "agetf.trained_on": "synthetic" if evaluation["synthetic"] else "corpus",
            }
            version = versions.create_version(client, settings.model_name, model_uri, run_id, tags)
            created = True
        else:
            # Known weights, measured anew: the run that made them takes the new figures.
            run_id, created = str(version.run_id), False
            _log_figures(config, workspace, client, run_id, evaluation, figures)
        decision = versions.set_aliases(
            client, settings.model_name, version, figures, judges, settings.gates
        )
        client.set_terminated(run_id)
    record = {
        "tracking_uri": workspace.relative(workspace.root / "mlflow.db")
        if settings.tracking_uri is None
        else settings.tracking_uri,
        "model": f"models:/{settings.model_name}/{version.version}",
        "version": str(version.version),
        "weights_sha256": sha256,
        "champion": decision.promote,
        "reasons": list(decision.reasons),
    }
    path = run_folder(config, workspace) / "registration.json"
    write_json(path, record)
    verdict = "champion" if decision.promote else "challenger, not promoted"
    return StageReport(
        STAGE,
        counts={"num_versions_created": int(created), "version": int(version.version)},
        outputs={"registration": workspace.relative(path)},
        messages=[]
        if decision.promote
        else [f"{record['model']} is {verdict}: {'; '.join(decision.reasons)}"],
    )


def _log_run(
    config: PipelineConfig, workspace: Workspace, client, experiment: str, sha256: str,
    evaluation: dict, figures: dict[str, float],
) -> str:  # fmt: skip
    """Log config, figures and files of the run; return its id."""
    from agetf_pipeline.registry import tracking

    settings = config.model_dump(mode="json")
    identity = fingerprint({"run_name": config.train.run_name}, CODE_VERSION, {"weights": sha256})
    run_id = tracking.resume_or_start_run(
        client, experiment, config.train.run_name, identity,
        {"agetf.synthetic": str(evaluation["synthetic"]).lower()},
    )  # fmt: skip
    tracking.log_params(client, run_id, tracking.flatten(settings))
    _log_figures(config, workspace, client, run_id, evaluation, figures)
    return run_id


def _log_figures(
    config: PipelineConfig, workspace: Workspace, client, run_id: str, evaluation: dict,
    figures: dict[str, float],
) -> None:  # fmt: skip
    from agetf_pipeline.registry import tracking

    tracking.log_metrics(client, run_id, figures)
    folder = run_folder(config, workspace)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _ARTIFACT_SUFFIXES:
            client.log_artifact(run_id, str(path), "report")
    client.log_dict(run_id, config.model_dump(mode="json"), "config/resolved.json")
    verdicts = {item["name"]: item["verdict"] for item in evaluation["must_hold"]}
    client.set_tag(run_id, "agetf.must_hold", json.dumps(verdicts, sort_keys=True))


def _log_model(run_id: str, weights: Path) -> str:
    from agetf_pipeline.age_transformer.renderer import Renderer
    from agetf_pipeline.registry.packaging import log_model

    renderer = Renderer.load(weights)
    anchors = tuple(float(age) for age in renderer.settings.anchors_years)
    return log_model(run_id, weights, anchors, renderer.size_px)
