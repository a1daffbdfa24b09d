"""Train the age estimator and the identity embedder that only evaluation may use.

On a synthetic workspace they learn from faces drawn for them alone: no image, label or network of
the pipeline reaches them. Otherwise from weights in files, or from the labelled photographs.
"""

import shutil
from pathlib import Path

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.hashing import fingerprint, hash_file
from agetf_pipeline.core.parallel import run_in_processes
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import TRAINING_MANIFEST
from agetf_pipeline.data.tables import read_table, table_hashes
from agetf_pipeline.stages.base import StageReport, run_once

STAGE = "train_evaluators"
CODE_VERSION = "1"

_NAMES = ("age_estimator", "identity_embedder")


def evaluator_path(workspace: Workspace, name: str) -> Path:
    """Return the weights file of an evaluator, `age_estimator` or `identity_embedder`."""
    return workspace.models / "evaluators" / f"{name}.safetensors"


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Bring both evaluators into `models/evaluators/`; say where one cannot be had."""
    settings = config.train_evaluators
    given = {
        "age_estimator": settings.age_estimator_weights,
        "identity_embedder": settings.identity_embedder_weights,
    }
    inputs = {
        f"weights/{name}": hash_file(path) if path.is_file() else "absent"
        for name, path in given.items()
        if path is not None
    }
    if not config.synthesize.enabled and len(inputs) < len(given):
        inputs |= table_hashes(workspace, TRAINING_MANIFEST)

    def work() -> StageReport:
        return _make(config, workspace, given)

    # Where given weights lie does not matter, only what they are: their hashes are inputs.
    fingerprinted = settings.model_dump(
        mode="json", exclude={"age_estimator_weights", "identity_embedder_weights"}
    )
    return run_once(
        workspace, STAGE, {**fingerprinted, "synthetic": config.synthesize.enabled},
        CODE_VERSION, inputs, work,
    )  # fmt: skip


def _make(
    config: PipelineConfig, workspace: Workspace, given: dict[str, Path | None]
) -> StageReport:
    from agetf_pipeline.checkpoints import require_verified
    from agetf_pipeline.core.devices import resolve_device, set_num_threads
    from agetf_pipeline.evaluation.judges import AGE_KIND, IDENTITY_KIND, load_judge

    set_num_threads(config.runtime.num_threads)
    device = resolve_device(config.runtime.device)
    outputs, messages = {}, []
    for name, kind in zip(_NAMES, (AGE_KIND, IDENTITY_KIND), strict=True):
        source = given[name]
        if source is None:
            continue
        require_verified(source, workspace, config.runtime)
        load_judge(source, kind, device)  # refuses what does not fit before it is copied
        with atomic_path(evaluator_path(workspace, name)) as temporary:
            shutil.copyfile(source, temporary)
        outputs[name] = workspace.relative(evaluator_path(workspace, name))
    wanted = [name for name in _NAMES if name not in outputs]
    counts, figures = {}, {}
    if wanted:
        counts, figures, reason = _train(config, workspace, wanted, device)
        for name in wanted:
            path = evaluator_path(workspace, name)
            if reason is None:
                outputs[name] = workspace.relative(path)
                continue
            # A file of an earlier configuration must not pass for this one's evaluator.
            path.unlink(missing_ok=True)
            messages.append(
                f"no {name.replace('_', ' ')}: {reason}. What needs it is reported as missing; "
                f"give train_evaluators.{name}_weights, or label more images with age and subject."
            )
    return StageReport(STAGE, counts=counts, figures=figures, outputs=outputs, messages=messages)


def _train(
    config: PipelineConfig, workspace: Workspace, wanted: list[str], device
) -> tuple[dict[str, int], dict[str, float | None], str | None]:
    """Train the wanted evaluators; counts, last losses, and why not, where there is too little."""
    from agetf_pipeline.evaluation import faces, training

    settings = config.train_evaluators
    if config.synthesize.enabled:
        data = faces.draw_faces(settings)
    else:
        rows = faces.labelled_rows(read_table(workspace, TRAINING_MANIFEST))
        data = faces.load_labelled_faces(workspace, rows, settings)
        reason = training.enough(data, settings)
        if reason is not None:
            return {"num_faces": len(data.faces)}, {}, reason
    trainers = {
        "age_estimator": training.train_age_estimator,
        "identity_embedder": training.train_identity_embedder,
    }
    calls = []
    for name in wanted:
        architecture = settings.model_dump(
            mode="json", exclude={"age_estimator_weights", "identity_embedder_weights"}
        )
        identity = fingerprint(architecture, CODE_VERSION, {"faces": data.version, "name": name})
        checkpoint = workspace.state / "fit" / f"evaluation_{name}.pt"
        path = evaluator_path(workspace, name)
        calls.append((trainers[name], data, settings, path, checkpoint, identity, device))
    together = device.type == "cpu"
    results = run_in_processes(_call, calls) if together else [_call(*call) for call in calls]
    figures: dict[str, float | None] = {
        f"{name}_final_loss": round(losses[-1], 4)
        for name, losses in zip(wanted, results, strict=True)
        if losses
    }
    counts = {"num_faces": len(data.faces), "num_people": int(data.people.max()) + 1}
    return counts, figures, None


def _call(function, *arguments):
    return function(*arguments)
