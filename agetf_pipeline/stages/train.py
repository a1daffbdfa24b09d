"""Train: fit the AgeTransformer to the training manifest, guided by the distilled networks.

Writes models/age_transformer/<run_name>/weights.safetensors (the average over the run's end) and,
in outputs/experiments/<run_name>/, the resolved config, metrics, curves and a grid of samples.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.hashing import fingerprint, hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import CAPTIONS, ENHANCED, IMAGES, TRAINING_MANIFEST
from agetf_pipeline.data.tables import read_table, table_hashes
from agetf_pipeline.stages.base import StageReport, run_once

if TYPE_CHECKING:
    import polars as pl

    from agetf_pipeline.age_transformer.renderer import Renderer
    from agetf_pipeline.training.dataset import FaceData
    from agetf_pipeline.training.loop import Run

STAGE = "train"
CODE_VERSION = "1"
_REPOSITORY = Path(__file__).resolve().parents[2]
_MIN_EFFECTIVE = 10.0


def weights_path(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the file that the run's weights are saved in."""
    return workspace.models / "age_transformer" / config.train.run_name / "weights.safetensors"


def anchors_path(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the file of the anchor ages: relative paths lie in the workspace or the repository."""
    inside = workspace.root / config.train.anchors
    return inside if inside.exists() else _REPOSITORY / config.train.anchors


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Train the configured run, go on with it where it stopped, or keep it where it is done."""
    from agetf_pipeline.training.dataset import read_anchors

    train = config.train
    settings = {
        **train.settings(),
        "synthetic": config.synthesize.enabled,
        "anchors": read_anchors(anchors_path(config, workspace)),
    }
    # How often to save changes nothing of the result; where weights to start from lie, neither.
    settings.pop("checkpoint_every_s")
    settings.pop("init_from")
    inputs = {
        **table_hashes(workspace, TRAINING_MANIFEST),
        **table_hashes(workspace, ENHANCED),
        **table_hashes(workspace, IMAGES),
        **_guidance_hashes(workspace),
    }
    if train.guidance != "null":
        inputs |= table_hashes(workspace, CAPTIONS) | _captions_version(workspace)
    if train.init_from is not None and train.init_from.exists():
        inputs["init_from"] = hash_file(train.init_from)
    identity = fingerprint(settings, CODE_VERSION, inputs)
    return run_once(
        workspace, STAGE, settings, CODE_VERSION, inputs, lambda: _work(config, workspace, identity)
    )


def _captions_version(workspace: Workspace) -> dict[str, str]:
    from agetf_pipeline.captions.versions import recorded_version

    version = recorded_version(workspace)
    return {} if version is None else {"captions/version": version.name}


def _guidance_hashes(workspace: Workspace) -> dict[str, str]:
    folder = workspace.models / "guidance"
    return {f"guidance/{path.stem}": hash_file(path) for path in folder.glob("*.safetensors")}


def _work(config: PipelineConfig, workspace: Workspace, identity: str) -> StageReport:
    from agetf_pipeline.age_transformer.renderer import KIND, Renderer
    from agetf_pipeline.core.weights import load_state, save_weights
    from agetf_pipeline.training import loop, records
    from agetf_pipeline.training.dataset import Sampler, effective_sizes, load_face_data

    manifest = read_table(workspace, TRAINING_MANIFEST)
    training, messages = _prepare(config, workspace, manifest, identity)
    folder, train = training.folder, config.train
    records.write_config(folder, config.model_dump(mode="json"))
    state = loop.train(training)
    load_state(state.model, state.ema.state, "the run's average")
    state.model.eval()
    held_out = load_face_data(workspace, manifest, training.model_settings.size_px, "val")
    paired_l1 = loop.measure_paired_l1(state.model, held_out, training.device)  # type: ignore[arg-type]
    path = weights_path(config, workspace)
    card = {
        "kind": KIND,
        "identity": identity,
        "run_name": train.run_name,
        "model": training.model_settings.to_card(),
        "model_size": train.model,
        "anchors_years": training.anchors_years,
        "guidance": train.guidance if training.vlm is not None else "null",
        "num_images": state.num_images,
        "trained_on": "synthetic" if config.synthesize.enabled else "workspace corpus",
    }
    save_weights(path, state.model, card)
    records.write_metrics(folder, state.history)
    records.write_curves(folder, state.history, f"{train.run_name}: means over the images seen")
    renderer = Renderer.load(path, str(training.device))
    _write_samples(config, folder, renderer, held_out if len(held_out) else training.data)
    training.checkpoint.unlink(missing_ok=True)
    sizes = effective_sizes(
        training.data.ages_years, training.data.variances_years2, training.anchors_years
    )
    outputs = {"weights": path, "config": folder / records.CONFIG_FILE,
               "metrics": folder / records.METRICS_FILE, "curves": folder / records.CURVES_FILE,
               "samples": folder / records.SAMPLES_FILE}  # fmt: skip
    return StageReport(
        STAGE,
        counts={
            "num_images_seen": state.num_images,
            "num_train_images": len(training.data),
            "num_pairable_images": Sampler(
                training.data, train, training.anchors_years
            ).num_pairable,
            "num_parameters": sum(p.numel() for p in state.model.parameters()),
        },
        figures={
            "val_paired_l1": paired_l1,
            **{f"effective_images_at_{age:g}_years": round(n, 1) for age, n in sizes.items()},
        },
        outputs={name: workspace.relative(file) for name, file in outputs.items()},
        messages=messages + _support_messages(sizes),
    )


def _prepare(
    config: PipelineConfig, workspace: Workspace, manifest: "pl.DataFrame", identity: str
) -> "tuple[Run, list[str]]":
    """Gather everything that a run needs."""
    from agetf_pipeline.age_transformer.sizes import settings_of
    from agetf_pipeline.checkpoints import require_verified
    from agetf_pipeline.core.devices import resolve_device, set_num_threads
    from agetf_pipeline.core.weights import read_state
    from agetf_pipeline.training.dataset import load_face_data, read_anchors
    from agetf_pipeline.training.guidance import load_guidance
    from agetf_pipeline.training.loop import Run
    from agetf_pipeline.training.vlm_guidance import open_guidance

    train = config.train
    set_num_threads(config.runtime.num_threads)
    device = resolve_device(config.runtime.device)
    plain = settings_of(train.model)
    data = load_face_data(workspace, manifest, plain.size_px, "train")
    messages: list[str] = []
    vlm = None
    if train.guidance != "null":
        vlm = open_guidance(workspace, data.image_ids, train.guidance, messages)
    settings = settings_of(train.model, 0 if vlm is None else vlm.width)
    if train.init_from is not None:
        require_verified(train.init_from, workspace, config.runtime)
    return Run(
        train,
        settings,
        read_anchors(anchors_path(config, workspace)),
        data,
        load_guidance(workspace, device),
        vlm,
        read_state(train.init_from) if train.init_from is not None else None,
        device,
        workspace.experiments / train.run_name,
        workspace.state / "fit" / "age_transformer" / f"{train.run_name}.pt",
        identity,
    ), messages


def _write_samples(
    config: PipelineConfig, folder: Path, renderer: "Renderer", data: "FaceData"
) -> None:
    """Render a few faces that training did not see, spread over ages, at every anchor."""
    import numpy as np

    from agetf_pipeline.age_transformer.grid import save_grid
    from agetf_pipeline.training.records import SAMPLES_FILE

    # One image of each person, the people spread evenly over ages.
    _, firsts = np.unique(data.identities, return_index=True)
    by_age = firsts[np.argsort(data.ages_years[firsts], kind="stable")]
    count = min(config.train.num_sample_faces, len(by_age))
    chosen = by_age[np.linspace(0, len(by_age) - 1, count).round().astype(int)]
    faces = data.pick(chosen, np.ones(count, bool))
    ages = renderer.card["anchors_years"]
    synthetic = config.synthesize.enabled
    save_grid(
        folder / SAMPLES_FILE,
        faces,
        renderer.render(faces, ages),
        ages,
        row_labels=[f"label {data.ages_years[index]:.0f}" for index in chosen],
        title=f"{config.train.run_name}: faces outside training, rendered at ten ages",
        footer="synthetic faces" if synthetic else None,
    )


def _support_messages(sizes: dict[float, float]) -> list[str]:
    thin = [f"{age:g}" for age, number in sizes.items() if number < _MIN_EFFECTIVE]
    if not thin:
        return []
    return [
        f"Fewer than {_MIN_EFFECTIVE:g} effective training images lie within 5 years of the anchors"
        f" {', '.join(thin)}: renderings at these ages are extrapolation."
    ]
