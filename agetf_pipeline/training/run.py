"""A training run from the manifest to saved weights, alone or as one of several processes.

The stage `train` and `torchrun -m agetf_pipeline.training` are this module: the first holds the
stage's lock and report around it, the second too, in its first process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.hashing import fingerprint, hash_file
from agetf_pipeline.core.work import StageReport, run_once
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import CAPTIONS, ENHANCED, IMAGES, TRAINING_MANIFEST
from agetf_pipeline.data.tables import read_table, table_hashes
from agetf_pipeline.data.trained_on import write_trained_on

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from agetf_pipeline.age_transformer.renderer import Renderer
    from agetf_pipeline.training.dataset import FaceData
    from agetf_pipeline.training.distributed import World
    from agetf_pipeline.training.loop import Run

STAGE = "train"
CODE_VERSION = "3"
_FIT_VERSION = "2"
"""Of the arithmetic alone: a run of the same is gone on with, or kept."""
_REPOSITORY = Path(__file__).resolve().parents[2]
_MIN_EFFECTIVE = 10.0
_NOT_OF_THE_RESULT = (
    "checkpoint_every_s", "keep_last", "num_processes", "sharding", "num_loader_workers",
    "init_from", "lpips_weights", "validate_every_images", "num_validation_faces",
)  # fmt: skip
"""Settings that change nothing of the result, or paths whose content counts instead."""


def weights_path(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the file that the run's weights are saved in."""
    return workspace.models / "age_transformer" / config.train.run_name / "weights.safetensors"


def checkpoints_path(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the folder of the run's checkpoints."""
    return weights_path(config, workspace).parent / "checkpoints"


def anchors_path(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the file of the anchor ages: relative paths lie in the workspace or the repository."""
    inside = workspace.root / config.train.anchors
    return inside if inside.exists() else _REPOSITORY / config.train.anchors


@dataclass(frozen=True)
class Plan:
    """What a run is, before anything heavy is loaded.

    Attributes:
        settings: The part of the config that the result depends on.
        inputs: Name to content hash of everything that it reads.
        identity: Fingerprint of both.
    """

    settings: dict[str, Any]
    inputs: dict[str, str]
    identity: str


def plan_of(config: PipelineConfig, workspace: Workspace) -> Plan:
    """Return what the configured run is."""
    from agetf_pipeline.training.dataset import read_anchors

    train = config.train
    settings = {
        **train.settings(),
        "synthetic": config.synthesize.enabled,
        "anchors": read_anchors(anchors_path(config, workspace)),
    }
    for name in _NOT_OF_THE_RESULT:
        settings.pop(name)
    inputs = {
        **table_hashes(workspace, TRAINING_MANIFEST),
        **table_hashes(workspace, ENHANCED),
        **table_hashes(workspace, IMAGES),
        **_guidance_hashes(workspace),
    }
    if train.guidance != "null":
        inputs |= table_hashes(workspace, CAPTIONS) | _captions_version(workspace)
    for name in ("init_from", "lpips_weights"):
        path: Path | None = getattr(train, name)
        if path is not None and path.exists():
            inputs[name] = hash_file(path)
    return Plan(settings, inputs, fingerprint(settings, _FIT_VERSION, inputs))


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Train the configured run, go on with it where it stopped, or keep it where it is done.

    With `train.num_processes` above one, `torchrun` is started and listened to.
    """
    plan = plan_of(config, workspace)

    def work() -> StageReport:
        from agetf_pipeline.training.launch import launch

        if config.train.num_processes > 1:
            return launch(config, workspace)
        report = fit(config, workspace, plan)
        assert report is not None
        return report

    return _once(workspace, plan, work)


def take_part(
    config: PipelineConfig, workspace: Workspace, world: "World", for_a_stage: bool
) -> StageReport | None:
    """Be one of the processes that `torchrun` started.

    Args:
        config: The configuration.
        workspace: The workspace.
        world: The processes, which have joined.
        for_a_stage: Whether a stage that holds the lock and writes the report is waiting for this.

    Returns:
        The report, in the first process.
    """
    from agetf_pipeline.training.distributed import share

    if not world.is_first:
        # Nothing comes where the run is done already.
        shared: Plan | None = share(None)
        return None if shared is None else fit(config, workspace, shared, world)
    plan = plan_of(config, workspace)

    def work() -> StageReport:
        share(plan)
        report = fit(config, workspace, plan, world)
        assert report is not None
        return report

    if for_a_stage:
        return work()
    report = _once(workspace, plan, work)
    if report.status == "skipped":
        share(None)
    return report


def fit(
    config: PipelineConfig, workspace: Workspace, plan: Plan, world: "World | None" = None
) -> StageReport | None:
    """Train, and write weights, records and samples. Returns the report, in the first process."""
    from agetf_pipeline.age_transformer.model import AgeTransformer
    from agetf_pipeline.age_transformer.renderer import Renderer
    from agetf_pipeline.core.weights import load_state, save_weights
    from agetf_pipeline.training import checkpoints, loop, records, validation
    from agetf_pipeline.training.dataset import Sampler, effective_sizes, load_face_data
    from agetf_pipeline.training.distributed import World, whole

    world = world or World()
    manifest = read_table(workspace, TRAINING_MANIFEST)
    training, messages = _prepare(config, workspace, manifest, plan, world)
    folder, train = training.folder, config.train
    if world.is_first:
        records.write_config(folder, config.model_dump(mode="json"))
    state = loop.train(training)
    average = whole(state.ema.state)
    if not world.is_first:
        return None
    model = AgeTransformer(training.model_settings)
    load_state(model, average, "the run's average")
    path = weights_path(config, workspace)
    learned_from = write_trained_on(path, training.data.image_ids)
    save_weights(path, model, {**training.card, "num_images": state.num_images})
    records.write_metrics(folder, state.history)
    records.write_curves(folder, state.history, f"{train.run_name}: means over the images seen")
    held_out = load_face_data(workspace, manifest, training.model_settings.size_px, "val")
    renderer = Renderer.load(path, str(training.device))
    _write_samples(config, folder, renderer, held_out if len(held_out) else training.data)
    checkpoints.finish(training.checkpoints, plan.identity)
    sizes = effective_sizes(
        training.data.ages_years, training.data.variances_years2, training.anchors_years
    )
    outputs = {"weights": path, "config": folder / records.CONFIG_FILE,
               "metrics": folder / records.METRICS_FILE, "curves": folder / records.CURVES_FILE,
               "samples": folder / records.SAMPLES_FILE, "trained_on": learned_from}  # fmt: skip
    return StageReport(
        STAGE,
        counts={
            "num_images_seen": state.num_images,
            "num_train_images": len(training.data),
            "num_pairable_images": Sampler(
                training.data, train, training.anchors_years
            ).num_pairable,
            "num_parameters": sum(p.numel() for p in model.parameters()),
        },
        figures={
            validation.PAIRED_L1: None,  # where nobody has two pictures
            **state.figures,
            **{f"effective_images_at_{age:g}_years": round(n, 1) for age, n in sizes.items()},
        },
        outputs={name: workspace.relative(file) for name, file in outputs.items()},
        messages=messages + _support_messages(sizes),
    )


def _once(workspace: Workspace, plan: Plan, work: Callable[[], StageReport]) -> StageReport:
    return run_once(workspace, STAGE, plan.settings, CODE_VERSION, plan.inputs, work)


def _captions_version(workspace: Workspace) -> dict[str, str]:
    from agetf_pipeline.captions.versions import recorded_version

    version = recorded_version(workspace)
    return {} if version is None else {"captions/version": version.name}


def _guidance_hashes(workspace: Workspace) -> dict[str, str]:
    folder = workspace.models / "guidance"
    return {f"guidance/{path.stem}": hash_file(path) for path in folder.glob("*.safetensors")}


def _prepare(
    config: PipelineConfig,
    workspace: Workspace,
    manifest: "pl.DataFrame",
    plan: Plan,
    world: "World",
) -> "tuple[Run, list[str]]":
    """Gather everything that a run needs."""
    from agetf_pipeline.age_transformer.model import AgeTransformer
    from agetf_pipeline.age_transformer.renderer import KIND
    from agetf_pipeline.age_transformer.sizes import settings_of
    from agetf_pipeline.checkpoints import require_verified
    from agetf_pipeline.core.devices import set_num_threads
    from agetf_pipeline.core.weights import read_state
    from agetf_pipeline.training import distributed, loop, validation
    from agetf_pipeline.training.checkpoints import git_commit
    from agetf_pipeline.training.dataset import load_face_data, read_anchors
    from agetf_pipeline.training.guidance import load_guidance, lpips_message
    from agetf_pipeline.training.vlm_guidance import open_guidance

    train = config.train
    distributed.rows_of(world, train.batch_size)
    set_num_threads(config.runtime.num_threads)
    device = distributed.device_of(config.runtime.device, world)
    plain = settings_of(train.model)
    data = load_face_data(workspace, manifest, plain.size_px, "train")
    held_out = load_face_data(workspace, manifest, plain.size_px, "val")
    messages: list[str] = []
    if not distributed.keeps_groups(world, train.batch_size):
        messages.append(
            f"train.batch_size is {train.batch_size} for {world.size} processes: the discriminator "
            "compares faces within each process. With a multiple of 4 x processes it compares "
            "those that a single process would."
        )
    vlm = None
    if train.guidance != "null":
        vlm = open_guidance(workspace, data.image_ids, train.guidance, messages)
    settings = settings_of(train.model, 0 if vlm is None else vlm.width)
    if train.init_from is not None:
        require_verified(train.init_from, workspace, config.runtime)
    anchors = read_anchors(anchors_path(config, workspace))

    if train.lpips_weights is not None:
        require_verified(train.lpips_weights, workspace, config.runtime)
    guidance = load_guidance(workspace, device, train.lpips_weights if train.losses.lpips else None)
    if said := lpips_message(train):
        messages.append(said)
    faces = validation.choose_faces(
        held_out, anchors, train.num_validation_faces, train.num_sample_faces, seed=train.seed
    )

    def validate(model: AgeTransformer) -> "tuple[dict[str, float], np.ndarray | None]":
        if faces is None:
            return {}, None
        figures = validation.measure(model, faces, guidance, device)
        return figures, validation.draw_faces(model, faces, device)

    return loop.Run(
        train,
        settings,
        anchors,
        data,
        guidance,
        vlm,
        read_state(train.init_from) if train.init_from is not None else None,
        device,
        workspace.experiments / train.run_name,
        checkpoints_path(config, workspace),
        plan.identity,
        record={
            "config": config.model_dump(mode="json"),
            "seed": train.seed,
            "git_commit": git_commit(),
            "data": plan.inputs,
        },
        card={
            "kind": KIND,
            "identity": plan.identity,
            "run_name": train.run_name,
            "model": settings.to_card(),
            "model_size": train.model,
            "anchors_years": anchors,
            "guidance": train.guidance if vlm is not None else "null",
            "trained_on": "synthetic" if config.synthesize.enabled else "workspace corpus",
        },
        world=world,
        validate=validate,
        max_silence_s=config.runtime.max_silence_s,
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
