"""Log the run in MLflow, register its model and the mixture once each, decide who is champion."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.hashing import fingerprint, hash_file
from agetf_pipeline.core.work import is_planning
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.trained_on import trained_on_path
from agetf_pipeline.stages.base import StageReport, load_report, report_path, run_once
from agetf_pipeline.stages.evaluate import STAGE as EVALUATE
from agetf_pipeline.stages.evaluate import model_path, run_folder

if TYPE_CHECKING:
    import polars as pl

    from agetf_pipeline.registry.promotion import Decision
    from agetf_pipeline.registry.registering import Registered
    from agetf_pipeline.registry.tracking import MlflowClient
    from agetf_pipeline.registry.versions import ModelVersion

_LOGGER = logging.getLogger(__name__)
STAGE = "register"
CODE_VERSION = "4"

_ARTIFACT_SUFFIXES = {".html", ".json", ".md", ".png", ".yaml"}
_KEY_FIGURES = ("renderings/age_mae_years", "renderings/id_similarity", "renderings/age_spearman")
_MIXTURE_FIGURES = ("labels/mae_years/mixture", "labels/cs5/mixture", "labels/interval_coverage")
_LABELS, _LABEL_FILE = "labels", "per_image.parquet"
_RECORD = "registration.json"


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Register the configured run; running again registers nothing twice.

    Raises:
        StageError: There are no weights or figures, the figures are of other weights, or somebody
            else promoted meanwhile.
        UnavailableError: The registry does not answer.
    """
    from agetf_pipeline.registry.tracking import tracking_uri_of

    weights, metrics = model_path(config, workspace), run_folder(config, workspace) / "metrics.json"
    for path, stage in ((weights, "train"), (metrics, "evaluate")):
        if not path.is_file():
            raise StageError(
                f"Expected {path} of run '{config.train.run_name}'; found nothing. "
                f"Run the stage {stage} first."
            )
    _require_measured(weights, metrics)
    uri = tracking_uri_of(workspace, config.register_model.tracking_uri)
    if not is_planning():
        _catch_up(config, workspace)
        _forget_where_moved(config, workspace, uri)
    inputs = {"weights": hash_file(weights), "metrics": hash_file(metrics)}
    mixture = _mixture_fingerprint(config, workspace)
    if mixture is not None:
        rows = run_folder(config, workspace) / _LABEL_FILE
        inputs |= {"mixture": mixture, "labels": hash_file(rows) if rows.is_file() else "none"}
    settings = {**config.register_model.settings(), "run_name": config.train.run_name}
    return run_once(
        workspace, STAGE, settings, CODE_VERSION, inputs,
        lambda: _register(config, workspace, mixture, read_json(metrics), uri),
    )  # fmt: skip


def _catch_up(config: PipelineConfig, workspace: Workspace) -> None:
    """Log the labels that the stage relabel could not log: then, MLflow did not answer."""
    from agetf_pipeline.registry.label_run import catch_up

    why_not = catch_up(workspace, config.register_model.tracking_uri)
    if why_not is not None:
        _LOGGER.warning("%s: %s", STAGE, why_not)


def _require_measured(weights: Path, metrics: Path) -> None:
    """Refuse figures of other weights than those that would be registered with them."""
    measured = read_json(metrics)["versions"].get("age_transformer")
    found = hash_file(weights)
    if measured != found:
        raise StageError(
            f"Expected figures of the weights in {weights}, sha256 {found}; found in {metrics} "
            f"those of {measured or 'weights that it does not name'}. Run evaluate again."
        )


def _forget_where_moved(config: PipelineConfig, workspace: Workspace, uri: str) -> None:
    """Drop the last report where the registry is not as that registration left it.

    What it says (who is champion) no longer counts where the registry was wiped or moved, or a
    rollback or another promotion came after. The state itself can be no input of the stage: to
    register changes it, and the same work would never be known again.
    """
    record = run_folder(config, workspace) / _RECORD
    recorded = read_json(record).get("registry") if record.is_file() else None
    if recorded != _registry_state(config, uri):
        report_path(workspace, STAGE).unlink(missing_ok=True)


def _registry_state(config: PipelineConfig, uri: str) -> dict[str, dict[str, str]] | None:
    """Return challenger and champion of both models; None where there is no registry yet."""
    from agetf_pipeline.registry.tracking import connected
    from agetf_pipeline.registry.versions import alias_state

    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return None
    its = config.register_model
    with connected(uri) as client:
        return {name: alias_state(client, name) for name in (its.model_name, its.mixture_name)}


def _mixture_fingerprint(config: PipelineConfig, workspace: Workspace) -> str | None:
    if not config.register_model.register_mixture:
        return None
    from agetf_pipeline.registry.mixture_packaging import mixture_fingerprint

    return mixture_fingerprint(config, workspace)


def _register(
    config: PipelineConfig, workspace: Workspace, mixture: str | None, evaluation: dict, uri: str
) -> StageReport:
    settings = config.register_model
    sha256 = hash_file(model_path(config, workspace))
    model = _register_model(config, workspace, sha256, evaluation, uri)
    registered, messages = [model], []
    record: dict[str, Any] = {
        "tracking_uri": workspace.relative(workspace.root / "mlflow.db")
        if settings.tracking_uri is None
        else settings.tracking_uri,
        **model.as_dict(),
        "weights_sha256": sha256,
        "mixture": None,
    }
    if mixture is not None:
        labels = _register_mixture(config, workspace, mixture, evaluation, uri)
        registered.append(labels)
        record["mixture"] = {**labels.as_dict(), "fingerprint": mixture}
    elif settings.register_mixture:
        messages.append(
            f"no version of {settings.mixture_name}: there is no calibration, or no expert's "
            "weights; run the stages relabel and train-experts"
        )
    path = run_folder(config, workspace) / _RECORD
    write_json(path, record | {"registry": _registry_state(config, uri)})
    messages += [
        f"{item.uri} is challenger, not promoted: {'; '.join(item.decision.reasons)}"
        for item in registered
        if not item.champion
    ]
    counts = {"num_versions_created": sum(item.created for item in registered),
              "version": int(model.version)}  # fmt: skip
    if mixture is not None:
        counts["mixture_version"] = int(registered[-1].version)
    return StageReport(
        STAGE,
        counts=counts,
        outputs={"registration": workspace.relative(path)},
        messages=messages,
    )


def _register_model(
    config: PipelineConfig, workspace: Workspace, sha256: str, evaluation: dict, uri: str
) -> "Registered":
    from agetf_pipeline.core.weights import read_card
    from agetf_pipeline.registry.promotion import Decision, decide
    from agetf_pipeline.registry.registering import Candidate, register
    from agetf_pipeline.registry.versions import as_compared

    settings, run_name = config.register_model, config.train.run_name

    def judge(_: "MlflowClient", now: "ModelVersion | None") -> tuple[Decision, str | None]:
        found = evaluation.get("champion")
        if found is not None and found.get("model") != settings.model_name:
            text = f"compared with a version of {found.get('model')}: run evaluate again"
            return Decision(False, (text,)), None
        compared = None if found is None else str(found["version"])
        return decide(evaluation, as_compared(now), settings.gates), compared

    candidate = Candidate(
        settings.model_name,
        "Renders a face at any age from 0 to 100 years.",
        settings.experiment,
        run_name,
        fingerprint({"run_name": run_name}, "1", {"weights": sha256}),
        sha256,
        evaluation["synthetic"],
        read_card(model_path(config, workspace)).get("trained_on", ""),
        evaluation["metrics"],
        _KEY_FIGURES,
    )
    return register(
        candidate, workspace, uri, _log_report(config, workspace, evaluation),
        lambda run_id: _log_model(run_id, model_path(config, workspace)), judge,
    )  # fmt: skip


def _log_report(
    config: PipelineConfig, workspace: Workspace, evaluation: dict
) -> "Callable[[MlflowClient, str], None]":
    """Return what logs config and report of the run."""

    def log(client: "MlflowClient", run_id: str) -> None:
        from agetf_pipeline.registry import tracking
        from agetf_pipeline.registry.trained_on import log_trained_on

        settings = config.model_dump(mode="json")
        tracking.log_params(client, run_id, tracking.flatten(settings))
        for path in _report_files(config, workspace):
            client.log_artifact(run_id, str(path), "report")
        client.log_dict(run_id, settings, "config/resolved.json")
        lists = {"age_transformer": trained_on_path(model_path(config, workspace))}
        log_trained_on(client, run_id, lists)
        verdicts = {item["name"]: item["verdict"] for item in evaluation["must_hold"]}
        client.set_tag(run_id, "agetf.must_hold", json.dumps(verdicts, sort_keys=True))

    return log


def _report_files(config: PipelineConfig, workspace: Workspace) -> list[Path]:
    """Return the figures, and what the stage evaluate wrote with them; nothing that lay there.

    Where another run was evaluated last, its files are not this run's.
    """
    folder = run_folder(config, workspace)
    report = load_report(workspace, EVALUATE)
    outputs = [] if report is None else [workspace.resolve(of) for of in report.outputs.values()]
    written = {
        path
        for path in outputs
        if path.parent == folder and path.suffix in _ARTIFACT_SUFFIXES and path.is_file()
    }
    return sorted(written | {folder / "metrics.json"})


def _log_model(run_id: str, weights: Path) -> str:
    from agetf_pipeline.age_transformer.renderer import Renderer
    from agetf_pipeline.registry.packaging import log_model

    renderer = Renderer.load(weights)
    anchors = tuple(float(age) for age in renderer.settings.anchors_years)
    return log_model(run_id, weights, anchors, renderer.size_px)


def _register_mixture(
    config: PipelineConfig, workspace: Workspace, mixture: str, evaluation: dict, uri: str
) -> "Registered":
    from agetf_pipeline.moe.calibration import calibration_path, load_calibration
    from agetf_pipeline.registry.label_gate import MeasuredLabels, decide_labels
    from agetf_pipeline.registry.label_run import EXPERIMENT
    from agetf_pipeline.registry.measured_labels import why_not_its_own
    from agetf_pipeline.registry.mixture_packaging import log_mixture
    from agetf_pipeline.registry.registering import Candidate, register
    from agetf_pipeline.registry.trained_on import log_trained_on
    from agetf_pipeline.registry.versions import as_compared

    settings = config.register_model
    rows = _label_rows(run_folder(config, workspace) / _LABEL_FILE)
    another = why_not_its_own(config, workspace, evaluation)
    measured = MeasuredLabels(evaluation, rows, config.evaluate.seed, another)
    # Figures of another mixture's labels are not written beside this one.
    figures: dict[str, Mapping[str, Any]] = {
        name: item
        for name, item in evaluation["metrics"].items()
        if name.startswith("labels/") and another is None
    }

    def judge(client: "MlflowClient", now: "ModelVersion | None") -> "tuple[Decision, str | None]":
        former = None if now is None else _logged_rows(client, now)
        champion = as_compared(now)
        decision = decide_labels(measured, champion, former, settings.gates)
        return decision, None if champion is None else champion.version

    def log(client: "MlflowClient", run_id: str) -> None:
        from tempfile import TemporaryDirectory

        log_trained_on(client, run_id, _lists_of_mixture(config, workspace))
        if another is not None:
            return
        with TemporaryDirectory() as folder:
            file = Path(folder) / _LABEL_FILE
            rows.write_parquet(file)
            client.log_artifact(run_id, str(file), _LABELS)

    candidate = Candidate(
        settings.mixture_name,
        "Estimates the age of a face, with an interval, by a calibrated mixture of experts.",
        EXPERIMENT,
        f"mixture-{mixture[:8]}",
        fingerprint({"model": settings.mixture_name}, "1", {"mixture": mixture}),
        mixture,
        evaluation["synthetic"],
        load_calibration(calibration_path(config.relabel, workspace)).trained_on,
        figures,
        _MIXTURE_FIGURES,
    )
    return register(
        candidate, workspace, uri, log, lambda run_id: log_mixture(run_id, config, workspace), judge
    )


def _lists_of_mixture(config: PipelineConfig, workspace: Workspace) -> dict[str, Path]:
    """Return where it says what experts and calibration learned from; files need not be there."""
    from agetf_pipeline.experts.load import weights_path
    from agetf_pipeline.moe.calibration import calibration_path

    experts = sorted(config.train_experts.experts)
    lists = {name: trained_on_path(weights_path(config, workspace, name)) for name in experts}
    calibration = calibration_path(config.relabel, workspace)
    return lists | {"calibration": trained_on_path(calibration)}


def _label_rows(path: Path) -> "pl.DataFrame":
    """Return the labels with a known truth; none where the run has no table of single images."""
    import polars as pl

    from agetf_pipeline.registry.label_gate import EMPTY_ROWS, label_rows

    return label_rows(pl.read_parquet(path)) if path.is_file() else EMPTY_ROWS


def _logged_rows(client: "MlflowClient", version: "ModelVersion") -> "pl.DataFrame | None":
    """Return the rows logged with a version; None where its run has none."""
    import polars as pl

    if not version.run_id:
        return None
    files = [item.path for item in client.list_artifacts(version.run_id, _LABELS)]
    file = f"{_LABELS}/{_LABEL_FILE}"
    if file not in files:
        return None
    return pl.read_parquet(client.download_artifacts(version.run_id, file))
