"""Train the age experts on the labelled CAF subjects; the calibration subjects are never seen.

Reads the tables `images` of the CAF shards. Writes `models/experts/<name>/`, and the curve and
TensorBoard scalars of a training to `outputs/experts/<name>/`. An expert with configured weights is
left as it is; one that was trained on the same faces and settings is reused, so that a run that was
killed goes on with the expert that is missing.
"""

import logging
from binascii import crc32
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.devices import resolve_device, set_num_threads
from agetf_pipeline.core.errors import ConfigError, StageError, WeightsError
from agetf_pipeline.core.hashing import fingerprint, hash_bytes, hash_file
from agetf_pipeline.core.parallel import run_in_processes
from agetf_pipeline.core.tuning import FitResult
from agetf_pipeline.core.weights import read_card
from agetf_pipeline.core.workspace import Workspace, is_caf
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.splits import identity_of, split_of
from agetf_pipeline.data.tables import list_partitions, read_table, table_hashes
from agetf_pipeline.data.trained_on import write_trained_on
from agetf_pipeline.experts.load import TRAINED_FILE, expert_folder, weights_hash
from agetf_pipeline.stages.base import StageReport, run_once

if TYPE_CHECKING:
    from agetf_pipeline.experts.training import LabelledFaces

_LOGGER = logging.getLogger(__name__)
STAGE = "train_experts"
CODE_VERSION = "4"
_FIT_VERSION = "3"
"""Of the arithmetic alone: a network of the same faces and settings is kept."""

_USUAL: tuple[str, ...] = ("janus", "mivolo", "resnet50", "vgg16")
_COLUMNS = ["image_id", "face_path", "gender", "true_age_years", "identity", "split"]
_READ_BATCH = 32
_VALIDATION_SEED = 7_340_033  # so that what is held out has nothing to do with the other splits


@dataclass
class _Outcome:
    """An expert after its training, or one that was kept.

    Attributes:
        card: The card of its weights.
        result: What the training went through; None where the expert was kept.
        messages: What a person should read.
    """

    card: dict[str, Any]
    result: FitResult | None = None
    messages: list[str] = field(default_factory=list)


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Train every expert that has no configured weights, and measure all on calibration subjects.

    Raises:
        ConfigError: No expert is configured.
        StageError: An expert has to be trained, and no image is labelled.
        WeightsError: Configured weights are absent or do not fit.
    """
    section = config.train_experts
    if not section.experts:
        raise ConfigError(
            "Expected experts in train_experts.experts; found none. Name at least one of "
            f"{list(_USUAL)}, as configs/base.yaml does."
        )
    trained = _trained_here(config)
    given: list[str] = [name for name in section.experts if name not in trained]
    partitions = [name for name in list_partitions(workspace, IMAGES) if is_caf(name)]
    inputs = table_hashes(workspace, IMAGES, partitions)
    inputs |= {f"weights/{name}": weights_hash(config, workspace, name) for name in given}
    for name in trained:
        initial = _initial_hash(config, workspace, name)
        inputs |= {f"init_weights/{name}": initial} if initial is not None else {}
    settings = {**section.settings(), "trained_on": _trained_on(config)}
    del settings["tensorboard"]  # changes no weight
    if "janus" in trained:
        settings["caption"] = _caption_settings(config)
    return run_once(
        workspace,
        STAGE,
        settings,
        CODE_VERSION,
        inputs,
        lambda: _work(config, workspace, partitions),
    )


def labelled_images(
    config: PipelineConfig, workspace: Workspace, partitions: list[str]
) -> pl.DataFrame:
    """Return the CAF images of known age with their identity and split (`train`, `calibration`).

    Sorted by `image_id`: a content hash, so that the first rows are a fair sample.
    """
    section = config.train_experts
    images = read_table(workspace, IMAGES, partitions)
    images = images.filter(pl.col("true_age_years").is_between(0, 100))
    identities = [
        identity_of(row["partition"], row["image_id"], row["subject"])
        for row in images.select("partition", "image_id", "subject").iter_rows(named=True)
    ]
    splits = [split_of(name, section.split_fractions, section.split_seed) for name in identities]
    columns = {"identity": identities, "split": splits}
    images = images.with_columns(
        pl.Series(name, values, dtype=pl.String) for name, values in columns.items()
    )
    # The same photograph may lie in two shards.
    return images.select(_COLUMNS).unique("image_id", keep="first").sort("image_id")


def _work(config: PipelineConfig, workspace: Workspace, partitions: list[str]) -> StageReport:
    from agetf_pipeline.experts.fine_tuning_log import curve_path, draw_curve
    from agetf_pipeline.experts.fine_tuning_report import add_validation

    set_num_threads(config.runtime.num_threads)
    images = labelled_images(config, workspace, partitions)
    train = images.filter(pl.col("split") == "train")
    calibration = images.filter(pl.col("split") == "calibration")
    counts = {
        "num_labelled_images": images.height,
        "num_train_subjects": train["identity"].n_unique(),
        "num_calibration_images": calibration.height,
    }
    figures: dict[str, float | None] = {}
    outputs: dict[str, str] = {}
    messages: list[str] = []
    names = _trained_here(config)
    _verify_initial_weights(config, workspace, names)
    parts: dict[str, pl.DataFrame] = {name: _part_of(config, train, name) for name in names}
    trained = _train_all(config, workspace, parts)
    for name, outcome in trained.items():
        counts[f"num_train_images_{name}"] = parts[name].height
        figures[f"final_loss_{name}"] = outcome.card.get("final_loss")
        messages += outcome.messages
        trained_path = expert_folder(workspace, name) / ("" if name == "janus" else TRAINED_FILE)
        outputs[name] = workspace.relative(trained_path)
        # With those that only stopped the training: they had a say in its weights.
        learned_from = write_trained_on(trained_path, parts[name]["image_id"])
        outputs[f"{name}_trained_on"] = workspace.relative(learned_from)
        expert = config.train_experts.experts[name]
        add_validation(name, expert, outcome.card, counts, figures, messages)
        if outcome.result is not None:
            draw_curve(workspace, name, expert, outcome.result, config.synthesize.enabled)
        if curve_path(workspace, name).is_file():
            outputs[f"loss_curve_{name}"] = workspace.relative(curve_path(workspace, name))
    figures |= _measure(config, workspace, calibration, messages)
    if config.synthesize.enabled:
        messages.append(
            "The experts are trained and measured on synthetic faces: their figures say nothing "
            "about photographs."
        )
    return StageReport(STAGE, counts=counts, figures=figures, outputs=outputs, messages=messages)


def _train_all(
    config: PipelineConfig, workspace: Workspace, parts: dict[str, pl.DataFrame]
) -> dict[str, _Outcome]:
    """Train every expert that is not trained yet."""
    calls: list[tuple[PipelineConfig, Workspace, str, pl.DataFrame]] = [
        (config, workspace, name, part) for name, part in parts.items()
    ]
    if resolve_device(config.runtime.device).type == "cpu":
        # The longest first, so that the cores end together.
        calls.sort(key=lambda call: -config.train_experts.experts[call[2]].num_steps)
        results = run_in_processes(_ensure_trained, calls, config.runtime.max_silence_s)
    else:
        results = [_ensure_trained(*call) for call in calls]
    by_name = {call[2]: result for call, result in zip(calls, results, strict=True)}
    return {name: by_name[name] for name in parts}  # in the order of the config, not of length


def _trained_here(config: PipelineConfig) -> list[str]:
    section = config.train_experts
    if not section.enabled:
        return []
    return [name for name in sorted(section.experts) if section.experts[name].weights is None]


def _caption_settings(config: PipelineConfig) -> dict[str, object]:
    """What the tiny Janus, which learns to caption too, takes from the captions' section."""
    caption = config.caption
    return {"prompt": caption.prompt, "num_train_faces": caption.num_train_faces}


def _trained_on(config: PipelineConfig) -> str:
    return "synthetic" if config.synthesize.enabled else "workspace corpus"


def _part_of(config: PipelineConfig, train: pl.DataFrame, name: str) -> pl.DataFrame:
    """The training images of one expert: each leaves out other subjects, so that errors differ."""
    section = config.train_experts
    fractions = {"seen": section.subject_fraction, "left_out": 1 - section.subject_fraction}
    seed = _seed_of(config, name)
    seen = [split_of(identity, fractions, seed) == "seen" for identity in train["identity"]]
    part = train.filter(pl.Series(seen, dtype=pl.Boolean))
    # Of very few subjects, chance may leave none.
    return (part if part.height else train).head(section.max_train_images)


def _seed_of(config: PipelineConfig, name: str) -> int:
    """A seed of its own for every expert, whatever others the config names."""
    own = _USUAL.index(name) if name in _USUAL else 10 + crc32(name.encode()) % 1_000_000
    return config.train_experts.seed * 10 + own + 1


def _ensure_trained(
    config: PipelineConfig, workspace: Workspace, name: str, part: pl.DataFrame
) -> _Outcome:
    """Train an expert unless its file stands and was made of the same."""
    expert = config.train_experts.experts[name]
    if not part.height:
        raise StageError(
            f"Expected CAF images with an age (age_years in a shard's manifest) to train the expert"
            f" {name}; found none. Add labelled CAF shards and run ingest, or name trained weights "
            f"in train_experts.experts.{name}.weights, or remove {name} from the experts."
        )
    settings = {
        "expert": expert.settings(),
        "seed": _seed_of(config, name),
        "trained_on": _trained_on(config),
        "caption": _caption_settings(config) if name == "janus" else None,
    }
    made_of = {
        "images": hash_bytes(part.drop("split").write_ndjson().encode()),
        "init_weights": _initial_hash(config, workspace, name) or "none",
    }
    identity = fingerprint(settings, _FIT_VERSION, made_of)
    path = expert_folder(workspace, name) / TRAINED_FILE
    if path.exists() and read_card(path).get("fit_identity") == identity:
        _LOGGER.info("%s was trained on the same faces and settings: kept", name)
        return _Outcome(read_card(path))
    outcome = _Outcome({})
    outcome.result = _train(config, workspace, name, part, identity, outcome.messages)
    outcome.card = read_card(path)
    if expert.size == "full" and expert.init_weights is None:
        outcome.messages.append(
            f"{name} (full size) was trained from random weights on {part.height} images. For "
            f"real use name published weights in train_experts.experts.{name}.weights, or ImageNet "
            f"weights to start from in train_experts.experts.{name}.init_weights."
        )
    return outcome


def _train(
    config: PipelineConfig,
    workspace: Workspace,
    name: str,
    part: pl.DataFrame,
    identity: str,
    messages: list[str],
) -> FitResult:
    from agetf_pipeline.experts.fine_tuning_log import TensorBoardLog, curve_path

    expert = config.train_experts.experts[name]
    learned, held_out = _hold_out(expert.validation_fraction, part, name, messages)
    data = _load_labelled(workspace, learned, expert.input_px, name, messages)
    checkpoint = workspace.state / "fit" / f"expert_{name}.pt"
    card: dict[str, Any] = {"trained_on": _trained_on(config), "fit_identity": identity}
    folder: Path = expert_folder(workspace, name)
    curve_path(workspace, name).unlink(missing_ok=True)  # of another training
    log = (
        TensorBoardLog(curve_path(workspace, name).parent / "tensorboard")
        if config.train_experts.tensorboard
        else None
    )
    try:
        if name == "janus":
            from agetf_pipeline.experts.janus import fit_janus

            return fit_janus(
                config, workspace, data.faces_NHWC, data.ages_years, checkpoint, identity, folder,
                card, log,
            )  # fmt: skip
        from agetf_pipeline.experts.training import fit_expert

        if held_out.height:
            card["num_validation_subjects"] = held_out["identity"].n_unique()
        return fit_expert(
            name, expert, data, _seed_of(config, name), resolve_device(config.runtime.device),
            checkpoint, identity, folder / TRAINED_FILE, card,
            _load_labelled(workspace, held_out, expert.input_px, name, messages),
            _initial_path(config, workspace, name), log,
        )  # fmt: skip
    finally:
        if log is not None:
            log.close()


def _hold_out(
    fraction: float, part: pl.DataFrame, name: str, messages: list[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Divide an expert's images by subject: what it learns from, and what stops its training."""
    if not fraction:
        return part, part.clear()
    fractions = {"held_out": fraction, "learned": 1 - fraction}
    names = [split_of(identity, fractions, _VALIDATION_SEED) for identity in part["identity"]]
    is_held_out = pl.Series([split == "held_out" for split in names], dtype=pl.Boolean)
    learned, held_out = part.filter(~is_held_out), part.filter(is_held_out)
    if learned.height and held_out.height:
        return learned, held_out
    messages.append(
        f"{name} was trained to its last step: of {part['identity'].n_unique()} subjects, chance "
        f"left none to {'learn from' if held_out.height else 'validate on'} at validation_fraction "
        f"{fraction:g}. Change it, or add labelled subjects."
    )
    return part, part.clear()


def _initial_path(config: PipelineConfig, workspace: Workspace, name: str) -> Path | None:
    path = config.train_experts.experts[name].init_weights
    return None if path is None else workspace.root / path


def _initial_hash(config: PipelineConfig, workspace: Workspace, name: str) -> str | None:
    path = _initial_path(config, workspace, name)
    if path is None:
        return None
    if not path.is_file():
        raise WeightsError(
            f"Expected weights for the training of {name} to start from at {path}; found nothing. "
            f"Put the file there (docs/fine_tuning.md says which), or correct or remove "
            f"train_experts.experts.{name}.init_weights."
        )
    return hash_file(path)


def _verify_initial_weights(config: PipelineConfig, workspace: Workspace, names: list[str]) -> None:
    """Refuse, before anything is trained, files that are not what they claim to be."""
    from agetf_pipeline.checkpoints.verifying import require_verified

    for name in names:
        path = _initial_path(config, workspace, name)
        if path is not None:
            require_verified(path, workspace, config.runtime)


def _load_labelled(
    workspace: Workspace, part: pl.DataFrame, size_px: int, name: str, messages: list[str]
) -> "LabelledFaces":
    from agetf_pipeline.experts.faces import load_readable_faces
    from agetf_pipeline.experts.training import LabelledFaces

    faces_NHWC, reasons = load_readable_faces(workspace, part["face_path"].to_list(), size_px)
    failed = [reason for reason in reasons if reason is not None]
    if failed:
        messages.append(
            f"{len(failed)} of {part.height} training images of {name} were left out, being "
            f"unreadable now; the first: {failed[0]}"
        )
    readable = part.filter(pl.Series([reason is None for reason in reasons], dtype=pl.Boolean))
    return LabelledFaces(
        faces_NHWC, readable["true_age_years"].to_numpy(), readable["gender"].to_list()
    )


def _measure(
    config: PipelineConfig, workspace: Workspace, calibration: pl.DataFrame, messages: list[str]
) -> dict[str, float | None]:
    """Mean absolute error of every expert on subjects that none was trained on."""
    from agetf_pipeline.experts.load import load_experts
    from agetf_pipeline.experts.predict import read_faces

    experts = load_experts(config, workspace)
    sample = calibration.head(config.train_experts.max_calibration_images)
    size_px = max(expert.input_px for expert in config.train_experts.experts.values())
    data = _load_labelled(workspace, sample, size_px, "the measurement", messages)
    if not len(data):
        messages.append("No calibration subject has a readable labelled image: no error measured.")
        return {f"mae_years_{expert.name}": None for expert in experts}
    names = [str(index) for index in range(len(data))]
    truth = pl.DataFrame({"image_id": names, "true_age_years": data.ages_years})
    rows = read_faces(experts, data.faces_NHWC, names, _READ_BATCH).join(truth, on="image_id")
    error = (pl.col("age_years") - pl.col("true_age_years")).abs().mean()
    errors = dict(rows.group_by("expert").agg(error).iter_rows())
    figures = {f"mae_years_{expert.name}": errors.get(expert.name) for expert in experts}
    messages.append(
        f"Errors are of {len(data)} images of {sample['identity'].n_unique()} calibration subjects."
    )
    return {name: None if value is None else round(value, 4) for name, value in figures.items()}
