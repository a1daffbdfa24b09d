"""Distil: train the frozen networks that guide AgeTransformer training.

The age regressor learns the labels of the training manifest; the identity embedder learns which
images show one person. Both see the training split alone.
"""

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.hashing import fingerprint
from agetf_pipeline.core.parallel import run_in_processes
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import ENHANCED, IMAGES, TRAINING_MANIFEST
from agetf_pipeline.data.tables import read_table, table_hashes
from agetf_pipeline.data.trained_on import write_trained_on
from agetf_pipeline.stages.base import StageReport, run_once

STAGE = "distill"
CODE_VERSION = "3"
_FIT_VERSION = "2"
"""Of the arithmetic alone: a network of the same faces and settings is kept."""

_NETWORKS = ("age_regressor", "identity_embedder")


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Train the age regressor and the identity embedder, or keep them where nothing changed."""
    settings = {**config.distill.settings(), "synthetic": config.synthesize.enabled}
    inputs = {
        **table_hashes(workspace, TRAINING_MANIFEST),
        **table_hashes(workspace, ENHANCED),
        **table_hashes(workspace, IMAGES),
    }
    identity = fingerprint(settings, _FIT_VERSION, inputs)
    return run_once(
        workspace, STAGE, settings, CODE_VERSION, inputs, lambda: _work(config, workspace, identity)
    )


def _work(config: PipelineConfig, workspace: Workspace, identity: str) -> StageReport:
    import numpy as np

    from agetf_pipeline.core.devices import resolve_device, set_num_threads
    from agetf_pipeline.core.weights import load_weights
    from agetf_pipeline.training import guidance
    from agetf_pipeline.training.dataset import load_face_data

    distill = config.distill
    device = resolve_device(config.runtime.device)
    set_num_threads(config.runtime.num_threads)
    manifest = read_table(workspace, TRAINING_MANIFEST)
    data = load_face_data(workspace, manifest, distill.input_px, "train")
    held_out = load_face_data(workspace, manifest, distill.input_px, "val")
    calls = [(config, workspace, name, identity) for name in _NETWORKS]
    if device.type == "cpu":
        run_in_processes(_ensure_trained, calls, config.runtime.max_silence_s)
    else:
        for call in calls:
            _ensure_trained(*call)
    outputs, networks = {}, {}
    for name in _NETWORKS:
        path = guidance.guidance_path(workspace, name)
        network = guidance.build_critic(name, distill.width, distill.input_px).to(device)
        load_weights(network, path)
        networks[name] = network.eval()
        outputs[name] = workspace.relative(path)
        learned_from = write_trained_on(path, data.image_ids)
        outputs[f"{name}_trained_on"] = workspace.relative(learned_from)
    mae = guidance.measure_age_mae(networks[guidance.AGE_REGRESSOR], held_out)
    auc = guidance.measure_same_person_auc(networks[guidance.IDENTITY_EMBEDDER], held_out)
    _, sizes = np.unique(data.identities, return_counts=True)
    num_subjects = int((sizes > 1).sum())
    return StageReport(
        STAGE,
        counts={
            "num_train_images": len(data),
            "num_val_images": len(held_out),
            "num_subjects_with_several_images": num_subjects,
        },
        figures={"age_mae_to_labels_years": mae, "same_person_auc": auc},
        outputs=outputs,
        messages=_messages(len(held_out), num_subjects, auc),
    )


def _ensure_trained(config: PipelineConfig, workspace: Workspace, name: str, identity: str) -> None:
    """Train one network unless its file stands and was made of the same."""
    import torch

    from agetf_pipeline.core.devices import resolve_device
    from agetf_pipeline.core.fitting import FitSettings
    from agetf_pipeline.core.weights import read_card, save_weights
    from agetf_pipeline.training import guidance
    from agetf_pipeline.training.dataset import load_face_data

    path = guidance.guidance_path(workspace, name)
    if path.exists() and read_card(path).get("identity") == identity:
        return
    distill = config.distill
    seed = distill.seed + _NETWORKS.index(name)
    manifest = read_table(workspace, TRAINING_MANIFEST)
    data = load_face_data(workspace, manifest, distill.input_px, "train")
    torch.manual_seed(seed)
    network = guidance.build_critic(name, distill.width, distill.input_px)
    network = network.to(resolve_device(config.runtime.device))
    fits = {
        guidance.AGE_REGRESSOR: guidance.fit_age_regressor,
        guidance.IDENTITY_EMBEDDER: guidance.fit_identity_embedder,
    }
    settings = FitSettings(distill.num_steps, distill.batch_size, distill.lr, seed=seed)
    checkpoint = workspace.state / "fit" / f"guidance_{name}.pt"
    fits[name](data, network, settings, checkpoint, identity)
    card = {
        "kind": name,
        "identity": identity,
        "width": distill.width,
        "input_px": distill.input_px,
        "trained_on": "synthetic" if config.synthesize.enabled else "workspace corpus",
        "num_images": len(data),
    }
    save_weights(path, network, card)
    checkpoint.unlink(missing_ok=True)


def _messages(num_held_out: int, num_subjects: int, auc: float | None) -> list[str]:
    messages = []
    if not num_held_out:
        messages.append(
            "The manifest has no image in split 'val': the guidance networks were not measured."
        )
    elif auc is None:
        messages.append(
            "No subject of split 'val' has two images: the identity embedder was not measured."
        )
    if not num_subjects:
        messages.append(
            "No subject has two images: the identity embedder learned from altered copies of single"
            " images, and knows less of what stays when a person ages."
        )
    return messages
