"""The one training loop of the AgeTransformer. Progress is counted in images.

Each step is a function of the state, the seed and the step's number, so that a killed run that is
started again ends with the weights of one that was not. Several processes run this loop alike, each
on its rows of a batch (see `distributed`); whatever only one does is said here by `is_first`.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agetf_pipeline.age_transformer.discriminator import Discriminator
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.sizes import ModelSettings
from agetf_pipeline.config.train import TrainConfig
from agetf_pipeline.core.batches import is_out_of_memory
from agetf_pipeline.core.devices import computes_bf16
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.parallel import MAX_SILENCE_S
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.training import objective
from agetf_pipeline.training.alignment import PairAligner
from agetf_pipeline.training.checkpoints import (
    Ema,
    Origin,
    TrainState,
    is_best,
    resume,
    save_checkpoint,
)
from agetf_pipeline.training.dataset import FaceData, Sampler
from agetf_pipeline.training.distributed import World, average_values, rows_of, share, whole
from agetf_pipeline.training.guidance import Guidance
from agetf_pipeline.training.loading import BatchReader, Loaded, batches, to_device
from agetf_pipeline.training.objective import StepData
from agetf_pipeline.training.records import Board
from agetf_pipeline.training.steps import shard, steps_of
from agetf_pipeline.training.validation import is_due
from agetf_pipeline.training.vlm_guidance import VlmGuidance

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What one training run is made of.

    Attributes:
        config: Its settings.
        model_settings: The network's architecture.
        anchors_years: Ages that are rendered.
        data: The training split, at the model's size.
        guidance: The frozen networks.
        vlm: What a vision-language model says of each image; None where training is not guided.
        initial_state: Weights to start from, or None.
        device: Where it runs.
        folder: The run folder, for logs and for a batch that went wrong.
        checkpoints: Folder of the checkpoints.
        identity: Fingerprint of all that the result depends on.
        record: What checkpoints say of where they come from, see `checkpoints.Origin`.
        card: What their averaged weights say of themselves.
        world: The processes that train, of which this is one.
        validate: Measures the averaged model, in evaluation mode, on faces outside training:
            figures by name, and a picture of a few faces, uint8 (H, W, 3), or None. Called in the
            first process.
        max_silence_s: Whoever reads a batch and takes longer hangs.
    """

    config: TrainConfig
    model_settings: ModelSettings
    anchors_years: list[float]
    data: FaceData
    guidance: Guidance
    vlm: VlmGuidance | None
    initial_state: dict[str, Tensor] | None
    device: torch.device
    folder: Path
    checkpoints: Path
    identity: str
    record: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    world: World = field(default_factory=World)
    validate: Callable[[AgeTransformer], tuple[dict[str, float], np.ndarray | None]] | None = None
    max_silence_s: float = MAX_SILENCE_S


def train(run: Run, stop_after_steps: int | None = None) -> TrainState:
    """Train to the configured number of images, from the checkpoint where there is one.

    Args:
        run: The run.
        stop_after_steps: Stop early, with a checkpoint written, as if interrupted.

    Returns:
        The state; its `ema.state` holds the weights to keep.

    Raises:
        StageError: A loss is not finite (the batch is saved in the run folder first), or the memory
            does not hold a step.
        UnavailableError: Whoever reads batches hangs.
    """
    config, first = run.config, run.world.is_first
    state = new_state(run)
    resume(run.checkpoints, state, run.identity, config.num_images, first)
    reader = _reader(run)
    board = Board(run.folder, state.num_images) if first else None
    if board is not None and not state.num_images:
        board.describe(run.record.get("config", {}))
    first_step, saved_s = state.step, time.monotonic()
    last_step = state.step + -(-(config.num_images - state.num_images) // config.batch_size)
    if stop_after_steps is not None:
        last_step = min(last_step, first_step + stop_after_steps)
    sums: dict[str, list[float]] = {}
    pinned = run.device.type == "cuda"
    with (
        Progress(f"train {config.run_name}", config.num_images, first) as progress,
        closing(
            batches(
                reader, first_step, last_step, config.num_loader_workers, pinned, run.max_silence_s
            )
        ) as arriving,
    ):
        progress.advance(state.num_images)
        logged_s = time.monotonic()
        for loaded in arriving:
            with _explained_shortage(run):
                values = train_step(run, state, loaded, reader.sampler)
            for name, value in values.items():
                sums.setdefault(name, []).append(value)
            progress.advance(config.batch_size, f"loss {values['loss']:.3f}")
            if not _passed(state.num_images, config.batch_size, config.log_every_images):
                continue
            row = {name: float(np.mean(seen)) for name, seen in sums.items()}
            num_seen = len(sums["loss"]) * config.batch_size
            speed = {"images_per_s": num_seen / (time.monotonic() - logged_s)}
            if is_due(state.num_images, config.batch_size, config.log_every_images,
                      config.validate_every_images):  # fmt: skip
                row |= _validate(run, state, board)
            state.history.append({"num_images": float(state.num_images), **row})
            if board is not None:
                board.log({**row, **speed}, state.num_images)
            sums = {}
            # Checkpoints fall on log points, so that no logged mean spans an interruption.
            late = time.monotonic() - saved_s > config.checkpoint_every_s
            if share(late or is_best(run.checkpoints, run.identity, state.figures)):
                path = _save(run, state)
                saved_s = time.monotonic()
                losses = ", ".join(f"{name} {value:.3g}" for name, value in row.items())
                progress.advance(0, f"checkpoint {path}: {losses}", force=True)
            logged_s = time.monotonic()
    if state.step > first_step:
        if state.num_images >= config.num_images and not state.figures:
            _validate(run, state, board)
        _save(run, state)
    if board is not None:
        board.close()
    return state


@contextmanager
def _explained_shortage(run: Run) -> Iterator[None]:
    """Say what to do where the memory does not hold a step.

    A step is not made of halves: the discriminator compares the faces of a batch, and means are
    weighted over all of it, so that halves would train another network.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        num_images, said = run.config.batch_size // run.world.size, str(error).strip()
        raise StageError(
            f"Expected memory on {run.device} for a step of {num_images} images; found too little: "
            f"{said.splitlines()[0] if said else type(error).__name__}. The last checkpoint "
            f"is kept ({run.checkpoints}): close other programs on the device and run the same "
            "again, or share the batch among more devices (train.num_processes, and "
            "train.sharding=fsdp2), which gives the same network. Otherwise train another one: "
            "lower train.batch_size or train.ages_per_image, or set train.precision=bf16."
        ) from error


def _reader(run: Run) -> BatchReader:
    """Return what reads this process's rows of every batch."""
    config = run.config
    sampler = Sampler(run.data, config, run.anchors_years)
    # Whole batches are read as they lie; rows cost a selection.
    rows = None if run.world.size == 1 else rows_of(run.world, config.batch_size)
    return BatchReader(sampler, run.vlm, config.guidance_dropout, config.seed, rows)


def new_state(run: Run) -> TrainState:
    """Return networks and optimisers at the start of a run; seeded, alike in every process.

    Raises:
        ConfigError: The number of processes does not fit the batch, or the sharding.
    """
    config = run.config
    rows_of(run.world, config.batch_size)
    torch.manual_seed(config.seed)
    model = AgeTransformer(run.model_settings)
    if run.initial_state is not None:
        model.load_state_dict(run.initial_state)
    model = model.to(run.device)
    discriminator = Discriminator(run.model_settings).to(run.device)
    aligner = PairAligner().to(run.device)
    if config.sharding == "fsdp2":
        shard(model, aligner, run.world, run.device)
    learned = [*model.parameters(), *aligner.parameters()]
    return TrainState(
        model,
        discriminator,
        aligner,
        *steps_of(model, aligner, discriminator, run.world, config.sharding),
        torch.optim.AdamW(learned, config.lr, (0.9, 0.99), weight_decay=0.01),
        torch.optim.AdamW(
            discriminator.parameters(), config.lr_discriminator, (0.0, 0.99), weight_decay=0.0
        ),
        Ema(model, config.ema_half_life_images),
    )


def train_step(run: Run, state: TrainState, loaded: Loaded, sampler: Sampler) -> dict[str, float]:
    """One step of generator and discriminator; returns the losses, over all processes."""
    config, device = run.config, run.device
    torch.manual_seed(config.seed * 1_000_003 + state.step)
    data = _to_step_data(run, state, loaded)
    _set_lr(state.optimizer, config.lr * schedule(state.num_images, config))
    bf16 = uses_bf16(config, device)
    state.model.train()
    state.discriminator.requires_grad_(False)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        parts, rendered = state.generator_step(
            state.discriminator, run.guidance, data, config.losses
        )
    loss = objective.total_loss(parts, config.losses)
    values = average_values({**parts, "loss": loss}, device)
    _stop_if_not_finite(run, state, sampler, values)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.max_grad_norm)
    values["grad_norm"] = float(whole(norm))
    _stop_if_not_finite(run, state, sampler, values)
    state.optimizer.step()
    if data.adversarial:
        values |= _discriminator_step(run, state, data, rendered, bf16)
        _stop_if_not_finite(run, state, sampler, values)
    state.step += 1
    state.num_images += config.batch_size
    state.figures = {}
    state.ema.update(state.model, config.batch_size, state.num_images)
    values["lr"] = state.optimizer.param_groups[0]["lr"]
    return values


def schedule(num_images: int, config: TrainConfig) -> float:
    """Return the learning rate's factor: linear warm-up, then a cosine to `lr_final_fraction`."""
    warmup = min(config.lr_warmup_images, config.num_images // 10)
    if num_images < warmup:
        return (num_images + config.batch_size) / (warmup + config.batch_size)
    done = (num_images - warmup) / max(1, config.num_images - warmup)
    low = config.lr_final_fraction
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether to train in bf16: as configured, or, for `auto`, where the hardware computes it."""
    if config.precision != "auto":
        return config.precision == "bf16"
    return computes_bf16(device)


def _discriminator_step(
    run: Run, state: TrainState, data: StepData, rendered: objective.Rendered, bf16: bool
) -> dict[str, float]:
    config = run.config
    fake, ages = objective.adversarial_fakes(rendered, data)
    with_r1 = state.step % config.r1_every == 0
    state.discriminator.requires_grad_(True)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=bf16):
        parts = state.discriminator_step(fake.detach(), ages, data, with_r1)
    loss = parts["discriminator"]
    if with_r1:
        # Lazy: the penalty stands for the steps between. Source: Karras et al. 2020.
        gamma = 0.0002 * run.model_settings.size_px**2 / config.batch_size
        loss = loss + parts["r1"] * gamma / 2 * config.r1_every
    state.optimizer_discriminator.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.discriminator.parameters(), 5.0)
    if torch.isfinite(norm):
        state.optimizer_discriminator.step()
    return {**average_values(parts, run.device), "grad_norm_discriminator": float(norm)}


def _validate(run: Run, state: TrainState, board: Board | None) -> dict[str, float]:
    """Measure the average of the weights; every process is told the figures."""
    if run.validate is None:
        return {}
    weights = whole(state.ema.state)
    figures: dict[str, float] = {}
    if run.world.is_first:
        model = AgeTransformer(run.model_settings)
        model.load_state_dict(weights)
        figures, picture = run.validate(model.to(run.device).eval().requires_grad_(False))
        if board is not None and picture is not None:
            board.show("faces/validation", picture, state.num_images)
    state.figures = share(figures)
    return state.figures


def _save(run: Run, state: TrainState) -> Path:
    card = {**run.card, "num_images": state.num_images}
    origin = Origin(run.identity, run.record, card)
    return save_checkpoint(run.checkpoints, state, origin, run.config.keep_last, run.world.is_first)


def _to_step_data(run: Run, state: TrainState, loaded: Loaded) -> StepData:
    """Put this process's rows of the batch on its device."""
    config = run.config
    on = to_device(loaded, run.device)
    progress = state.num_images / config.num_images
    adversarial = config.losses.adversarial > 0 and progress >= config.adversarial_from
    return StepData(
        on.source, on.ages, on.target, on.has_target, on.variance, on.vlm, progress, state.step,
        adversarial,
    )  # fmt: skip


def _stop_if_not_finite(
    run: Run, state: TrainState, sampler: Sampler, values: dict[str, float]
) -> None:
    """Stop every process alike (the values are of all), with the whole batch saved once."""
    wrong = sorted(name for name, value in values.items() if not math.isfinite(value))
    if not wrong:
        return
    path = run.folder / f"bad_batch_step_{state.step}.npz"
    if run.world.is_first:
        batch = sampler.draw(state.step)
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                image_ids=np.array([run.data.image_ids[index] for index in batch.indices]),
                sources=batch.sources,
                ages_years=batch.ages_years,
                targets=batch.targets,
            )
    raise StageError(
        f"Expected finite losses; found {', '.join(wrong)} not finite at step {state.step} "
        f"(image {state.num_images}). The batch is in {path}. Lower train.lr, or look at it."
    )


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _passed(num_images: int, batch_size: int, every: int) -> bool:
    return every > 0 and num_images // every > (num_images - batch_size) // every
