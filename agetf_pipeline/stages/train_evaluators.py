"""Bring or train the networks that only evaluation may use: ages, identities, attributes.

On a synthetic workspace they learn from faces drawn for them alone: no image, label or network of
the pipeline reaches them. Otherwise from weights in files, or from the labelled photographs; what
reads attributes of photographs from a file alone, for the corpora do not label them.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.hashing import fingerprint, hash_file
from agetf_pipeline.core.parallel import run_in_processes
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import TRAINING_MANIFEST
from agetf_pipeline.data.tables import read_table, table_hashes
from agetf_pipeline.data.trained_on import trained_on_path, write_trained_on
from agetf_pipeline.stages.base import StageReport, run_once

if TYPE_CHECKING:
    import torch

STAGE = "train_evaluators"
CODE_VERSION = "3"
_FIT_VERSION = "2"
"""Of the arithmetic alone: a network of the same faces and settings is kept."""

# Longest training first: where there are fewer cores than networks, nobody waits for it at the end.
_NAMES = ("identity_embedder", "age_estimator", "attribute_classifier")


def evaluator_path(workspace: Workspace, name: str) -> Path:
    """Return the weights file of an evaluator: `age_estimator`, `identity_embedder` or
    `attribute_classifier`.
    """
    return workspace.models / "evaluators" / f"{name}.safetensors"


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Bring the evaluators into `models/evaluators/`; say where one cannot be had.

    Raises:
        StageError: The identity embedder given is what training is guided by.
        WeightsError: A given file cannot be used.
    """
    settings = config.train_evaluators
    given = {name: getattr(settings, f"{name}_weights") for name in _NAMES}
    inputs = {
        f"weights/{name}": hash_file(path) if path.is_file() else "absent"
        for name, path in given.items()
        if path is not None
    }
    if given["identity_embedder"] is not None:
        inputs |= {f"used/{use}": hash_file(path) for use, path in _used(config, workspace).items()}
    trained = [name for name, path in given.items() if path is None]
    if not config.synthesize.enabled and set(trained) - {"attribute_classifier"}:
        inputs |= table_hashes(workspace, TRAINING_MANIFEST)

    def work() -> StageReport:
        return _make(config, workspace, given)

    return run_once(
        workspace, STAGE, {**_fingerprinted(config), "synthetic": config.synthesize.enabled},
        CODE_VERSION, inputs, work,
    )  # fmt: skip


def _fingerprinted(config: PipelineConfig) -> dict:
    # Where given weights lie does not matter, only what they are: their hashes are inputs.
    return config.train_evaluators.model_dump(
        mode="json", exclude={f"{name}_weights" for name in _NAMES}
    )


def _used(config: PipelineConfig, workspace: Workspace) -> dict[str, Path]:
    """Return the identity networks that other stages use, those there are, by their use."""
    paths = {
        "guidance": workspace.models / "guidance" / "identity_embedder.safetensors",
        "guard": config.recheck.identity_weights,
    }
    return {use: path for use, path in paths.items() if path is not None and path.is_file()}


def _make(
    config: PipelineConfig, workspace: Workspace, given: dict[str, Path | None]
) -> StageReport:
    from agetf_pipeline.checkpoints import require_verified
    from agetf_pipeline.core.devices import resolve_device, set_num_threads

    set_num_threads(config.runtime.num_threads)
    device = resolve_device(config.runtime.device)
    outputs, messages, wanted = {}, [], []
    for name in _NAMES:
        source, path = given[name], evaluator_path(workspace, name)
        if source is not None:
            require_verified(source, workspace, config.runtime)
            messages += _bring(name, source, path, config, workspace, device)
            outputs[name] = workspace.relative(path)
        elif name == "attribute_classifier" and not config.synthesize.enabled:
            # A classifier of drawings would say of photographs what it never learned.
            messages += [_absent(name, path, "photographs here have no labels of attributes")]
        else:
            wanted.append(name)
    for name in _NAMES:  # of an earlier configuration; those trained here write their own
        trained_on_path(evaluator_path(workspace, name)).unlink(missing_ok=True)
    counts, figures = {}, {}
    if wanted:
        counts, figures, reason = _train(config, workspace, wanted, device)
        for name in wanted:
            path = evaluator_path(workspace, name)
            if reason is None:
                outputs[name] = workspace.relative(path)
                if trained_on_path(path).is_file():
                    listed = workspace.relative(trained_on_path(path))
                    outputs[f"{name}_trained_on"] = listed
            else:
                messages.append(
                    _absent(name, path, reason, "label more images with age and subject")
                )
    if "attribute_classifier" in outputs:
        figures |= _attribute_accuracy(workspace, device)
    return StageReport(STAGE, counts=counts, figures=figures, outputs=outputs, messages=messages)


def _absent(name: str, path: Path, reason: str, otherwise: str = "") -> str:
    """Say that there is no such evaluator, and take away what an earlier configuration left."""
    path.unlink(missing_ok=True)
    return (
        f"no {name.replace('_', ' ')}: {reason}. What needs it is reported as missing; "
        f"give train_evaluators.{name}_weights{', or ' if otherwise else ''}{otherwise}."
    )


def _bring(
    name: str,
    source: Path,
    path: Path,
    config: PipelineConfig,
    workspace: Workspace,
    device: "torch.device",
) -> list[str]:
    """Copy given weights, refused before they are copied if they do not fit; return messages."""
    from agetf_pipeline.evaluation.attributes import load_attribute_reader
    from agetf_pipeline.evaluation.embedders import bring_embedder, load_embedder
    from agetf_pipeline.evaluation.judges import AGE_KIND, load_judge

    if name == "identity_embedder":
        messages = _about_use(source, config, workspace)
        bring_embedder(source, path)
        embedder = load_embedder(path, device)
        return [*messages, f"identities: {embedder.name}, trained on {embedder.trained_on}"]
    if name == "age_estimator":
        load_judge(source, AGE_KIND, device)
    else:
        load_attribute_reader(source, device)
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)
    return []


def _about_use(source: Path, config: PipelineConfig, workspace: Workspace) -> list[str]:
    """Refuse what training is guided by; warn of what chose the images."""
    from agetf_pipeline.evaluation.embedders import tensors_digest

    own = tensors_digest(source)
    same = {use for use, path in _used(config, workspace).items() if tensors_digest(path) == own}
    if "guidance" in same:
        raise StageError(
            f"Expected a recogniser that training never saw; found that {source} is the network of "
            "models/guidance/identity_embedder.safetensors, by which training is guided: its "
            "figures would praise what training learned to please. Give another file in "
            "train_evaluators.identity_embedder_weights."
        )
    if "guard" in same:
        return [
            "the identity embedder is also the guard after enhancement (recheck.identity_weights): "
            "its figures on images that the guard let through flatter. Name another for one of them"
        ]
    return []


def _attribute_accuracy(workspace: Workspace, device: "torch.device") -> dict[str, float | None]:
    """Return the classifier's own accuracy on faces it has not seen, by attribute."""
    from agetf_pipeline.evaluation.attributes import load_attribute_reader

    reader = load_attribute_reader(evaluator_path(workspace, "attribute_classifier"), device)
    return {f"attribute_accuracy_{name}": own.accuracy for name, own in reader.accuracy.items()}


def _train(
    config: PipelineConfig, workspace: Workspace, wanted: list[str], device: "torch.device"
) -> tuple[dict[str, int], dict[str, float | None], str | None]:
    """Train the wanted evaluators; counts, last losses, and why not, where there is too little."""
    from agetf_pipeline.evaluation import faces, training
    from agetf_pipeline.evaluation.attribute_training import train_attribute_classifier

    settings = config.train_evaluators
    if config.synthesize.enabled:
        data, learned_from = faces.draw_faces(settings), []
    else:
        rows = faces.labelled_rows(read_table(workspace, TRAINING_MANIFEST))
        data, learned_from = (
            faces.load_labelled_faces(workspace, rows, settings),
            rows["image_id"].to_list(),
        )
        reason = training.enough(data, settings)
        if reason is not None:
            return {"num_faces": len(data.faces)}, {}, reason
    trainers = {
        "identity_embedder": training.train_identity_embedder,
        "age_estimator": training.train_age_estimator,
        "attribute_classifier": train_attribute_classifier,
    }
    calls = []
    for name in wanted:
        made_by = {"faces": data.version, "name": name}
        identity = fingerprint(_fingerprinted(config), _FIT_VERSION, made_by)
        checkpoint = workspace.state / "fit" / f"evaluation_{name}.pt"
        path = evaluator_path(workspace, name)
        if learned_from:
            write_trained_on(path, learned_from)
        calls.append((trainers[name], data, settings, path, checkpoint, identity, device))
    together = device.type == "cpu"
    silence_s = config.runtime.max_silence_s
    results = (
        run_in_processes(_call, calls, silence_s) if together else [_call(*call) for call in calls]
    )
    figures: dict[str, float | None] = {
        f"{name}_final_loss": round(losses[-1], 4)
        for name, losses in zip(wanted, results, strict=True)
        if losses
    }
    counts = {"num_faces": len(data.faces), "num_people": int(data.people.max()) + 1}
    return counts, figures, None


def _call(function, *arguments):
    return function(*arguments)
