"""Both trainings of the ageing benchmark, in chunks: a chunk is a point of the learning curves.

The AgeTransformer is trained by the pipeline's own loop. The U-Net sees the very same batches, is
held to the same pictures by the same losses, and has the same optimiser, schedule and average.
Only CPU time spent training is counted; a run that was killed goes on after its last chunk.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agetf_pipeline.age_transformer import losses
from agetf_pipeline.age_transformer.discriminator import Discriminator
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.renderer import to_tensor
from agetf_pipeline.age_transformer.sizes import ANCHORS_YEARS, SIZES
from agetf_pipeline.config.train import LossWeights, TrainConfig
from agetf_pipeline.core.files import atomic_path, read_json, write_json
from agetf_pipeline.training import loop
from agetf_pipeline.training.checkpoints import Ema
from agetf_pipeline.training.dataset import FaceData, Sampler
from agetf_pipeline.training.guidance import Guidance
from benchmarks.ageing_baselines import ResidualUNet

CPU = torch.device("cpu")
MODEL = "tiny-64"
Curve = list[dict[str, float]]
Measure = Callable[[torch.nn.Module], dict[str, float]]
"""Validation figures of a network with averaged weights."""


def train_config(num_images: int, **changes: Any) -> TrainConfig:
    """Return the settings of the AgeTransformer's training."""
    settings: dict[str, Any] = {
        "run_name": "ageing_benchmark",
        "model": MODEL,
        "num_images": num_images,
        "batch_size": 8,
        "ages_per_image": 4,
        "all_anchors_every": 0,
        "paired_fraction": 1.0,
        "off_anchor_fraction": 0.0,
        "lr": 4e-4,
        "lr_warmup_images": 800,
        "lr_final_fraction": 0.02,
        "ema_half_life_images": 1500,
        "log_every_images": 400,
        "checkpoint_every_s": 3600.0,
        "losses": LossWeights(
            age=0.05, identity=0.0, reconstruction=0.7, paired=5.0, preservation=0.0,
            adversarial=0.0, cycle=0.0, order=0.0, smoothness=0.02,
        ),
    }  # fmt: skip
    return TrainConfig(**{**settings, **changes})


def unet_config(num_images: int) -> TrainConfig:
    """Return the settings of the U-Net's training: the same but for length and learning rate."""
    return train_config(num_images, lr=1.5e-3)


@dataclass(frozen=True)
class Trained:
    """A network at the end of its training.

    Attributes:
        network: With averaged weights, in evaluation mode.
        curve: A row per chunk: num_images, num_renderings, cpu_s and what was measured.
    """

    network: torch.nn.Module
    curve: Curve


def train_ours(
    config: TrainConfig,
    data: FaceData,
    guides: Guidance,
    folder: Path,
    num_chunks: int,
    measure: Measure,
) -> Trained:
    """Train the AgeTransformer as the stage `train` does, and measure it after each chunk."""
    settings = SIZES[config.model]
    run = loop.Run(
        config=config, model_settings=settings, anchors_years=list(ANCHORS_YEARS), data=data,
        guidance=guides, vlm=None, initial_state=None, device=CPU, folder=folder,
        checkpoints=folder / "checkpoints", identity="ageing benchmark",
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    curve = _read_curve(folder)
    network = AgeTransformer(settings).eval()
    num_steps = math.ceil(config.num_images / config.batch_size)
    done = len(curve)
    while True:
        begin_s = time.process_time()
        # With no step left it returns the finished state at once.
        left = math.ceil(num_steps * (done + 1) / num_chunks) - math.ceil(
            num_steps * done / num_chunks
        )
        state = loop.train(run, stop_after_steps=left if done < num_chunks else None)
        spent_s = time.process_time() - begin_s
        network.load_state_dict(state.ema.state)
        network.eval()
        if done >= num_chunks:
            return Trained(network, curve)
        _add_point(folder, curve, state.num_images, config, spent_s, measure(network))
        done = len(curve)


def train_unet(
    config: TrainConfig,
    data: FaceData,
    folder: Path,
    num_chunks: int,
    measure: Measure,
    width: int = 16,
    adversarial: float = 0.0,
) -> Trained:
    """Train the U-Net on the same batches with the same losses.

    Args:
        config: Of the AgeTransformer's training; length and learning rate may differ.
        data: The train part.
        folder: For the unfinished state and the curve.
        num_chunks: Points of the learning curve.
        measure: Validation.
        width: Channels of the U-Net's first level.
        adversarial: Weight of the adversarial loss; FRAN's is 0.05 beside an L1 of weight 1.
    """
    torch.manual_seed(config.seed)
    # Channels last: a third faster on a CPU.
    network = ResidualUNet(width).to(memory_format=torch.channels_last)
    average_of = ResidualUNet(width)
    judge = Discriminator(SIZES[MODEL])
    optimizers = (
        torch.optim.AdamW(network.parameters(), config.lr, (0.9, 0.99), weight_decay=0.01),
        torch.optim.AdamW(judge.parameters(), config.lr_discriminator, (0.0, 0.99)),
    )
    average = Ema(network, config.ema_half_life_images)
    sampler = Sampler(data, config, list(ANCHORS_YEARS))
    folder.mkdir(parents=True, exist_ok=True)
    curve, path = _read_curve(folder), folder / "state.pt"
    parts = {"network": network, "judge": judge, "optimizer": optimizers[0],
             "optimizer_judge": optimizers[1]}  # fmt: skip
    if curve:
        stored = torch.load(path, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(stored[name])
        average.state = stored["average"]
    num_steps = math.ceil(config.num_images / config.batch_size)
    for chunk in range(len(curve), num_chunks):
        begin_s = time.process_time()
        steps = (math.ceil(num_steps * (chunk + k) / num_chunks) for k in (0, 1))
        for step in range(*steps):
            _unet_step(step, sampler, network, judge, optimizers, config, adversarial)
            average.update(network, config.batch_size, (step + 1) * config.batch_size)
        spent_s = time.process_time() - begin_s
        average_of.load_state_dict(average.state)
        measured = measure(average_of.eval())
        with atomic_path(path) as temporary:
            content = {name: part.state_dict() for name, part in parts.items()}
            torch.save({**content, "average": average.state}, temporary)
        num_images = math.ceil(num_steps * (chunk + 1) / num_chunks) * config.batch_size
        _add_point(folder, curve, num_images, config, spent_s, measured)
    average_of.load_state_dict(average.state)
    return Trained(average_of.eval(), curve)


def _unet_step(
    step: int,
    sampler: Sampler,
    network: ResidualUNet,
    judge: Discriminator,
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    config: TrainConfig,
    adversarial: float,
) -> None:
    """One batch: pixels, edges and structure as `training.objective` weighs them; adversarial."""
    torch.manual_seed(config.seed * 1_000_003 + step)
    batch = sampler.draw(step)
    B, A = batch.ages_years.shape
    ages = torch.from_numpy(batch.ages_years)
    source = to_tensor(batch.sources).repeat_interleave(A, dim=0)
    target = to_tensor(batch.targets.reshape(B * A, *batch.targets.shape[2:]))
    has_target = torch.from_numpy(batch.has_target.reshape(-1))
    own = (torch.arange(B * A) % A == 0).float()
    weights = config.losses
    for optimizer in optimizers:
        lr = config.lr if optimizer is optimizers[0] else config.lr_discriminator
        for group in optimizer.param_groups:
            group["lr"] = lr * loop.schedule(step * config.batch_size, config)
    bf16 = loop.uses_bf16(config, CPU)
    network.train()
    judge.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        source = source.contiguous(memory_format=torch.channels_last)
        image = network(source, ages[:, :1].expand(B, A).reshape(-1), ages.reshape(-1))
    seen = has_target.nonzero().squeeze(1)
    values = losses.pixel_loss(image, target) + losses.edge_loss(image, target)
    structure = 0.15 * losses.structure_loss(image, target)
    pairs = ((1 - own) * (values + structure))[seen].sum() / (1 - own)[seen].sum().clamp(min=1)
    loss = weights.paired * pairs + weights.reconstruction * (own * values).sum() / B
    fake = image[1 + step % (A - 1) :: A]
    fake_ages = ages[:, 1 + step % (A - 1)]
    if adversarial:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = judge(fake, fake_ages)
        loss = loss + adversarial * weights.paired * losses.generator_loss(logits).mean()
    optimizers[0].zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
    optimizers[0].step()
    if adversarial:
        _judge_step(step, judge, optimizers[1], batch, fake.detach(), fake_ages, config)


def _judge_step(
    step: int,
    judge: Discriminator,
    optimizer: torch.optim.Optimizer,
    batch: Any,
    fake: torch.Tensor,
    fake_ages: torch.Tensor,
    config: TrainConfig,
) -> None:
    """The discriminator learns from the sources at their ages against the renderings."""
    judge.requires_grad_(True)
    real = to_tensor(batch.sources)
    real_ages = torch.from_numpy(batch.ages_years[:, 0])
    with torch.autocast("cpu", torch.bfloat16, enabled=loop.uses_bf16(config, CPU)):
        logits = judge(torch.cat([real, fake]), torch.cat([real_ages, fake_ages]))
    loss = losses.discriminator_loss(*logits.chunk(2)).mean()
    if step % config.r1_every == 0:
        real.requires_grad_(True)
        gamma = 0.0002 * real.shape[-1] ** 2 / config.batch_size
        penalty = losses.r1_penalty(judge(real, real_ages), real).mean()
        loss = loss + penalty * gamma / 2 * config.r1_every
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(judge.parameters(), 5.0)
    optimizer.step()


def _read_curve(folder: Path) -> Curve:
    path = folder / "curve.json"
    return read_json(path) if path.exists() else []


def _add_point(
    folder: Path,
    curve: Curve,
    num_images: int,
    config: TrainConfig,
    spent_s: float,
    measured: dict[str, float],
) -> None:
    before_s = curve[-1]["cpu_s"] if curve else 0.0
    curve.append(
        {
            "num_images": float(num_images),
            "num_renderings": float(num_images * config.ages_per_image),
            "cpu_s": before_s + spent_s,
            **{name: float(np.float32(value)) for name, value in measured.items()},
        }
    )
    write_json(folder / "curve.json", curve)
