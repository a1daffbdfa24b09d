"""A whole training step, and batches for it, without a training: for the loader's benchmark.

Importing this loads torch.
"""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from agetf_pipeline.age_transformer.discriminator import Discriminator
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.sizes import ANCHORS_YEARS, SIZES
from agetf_pipeline.config.train import TrainConfig
from agetf_pipeline.training import objective
from agetf_pipeline.training.alignment import PairAligner
from agetf_pipeline.training.critics import AgeRegressor, IdentityEmbedder
from agetf_pipeline.training.dataset import FaceData, Sampler
from agetf_pipeline.training.guidance import Guidance
from agetf_pipeline.training.loading import BatchReader, Loaded, batches, to_device
from agetf_pipeline.training.objective import StepData

_CACHE_MIB = {"tiny-64": 256, "base-128": 512}
BATCH_SIZE = {"tiny-64": 8, "base-128": 32}
CPU_STEP_BATCH = {"tiny-64": 8, "base-128": 4}
_VLM_WIDTH = 1024


class Vectors:
    """Vectors of images in a file, read as the caption cache's are: a row at a time."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count

    def of(self, items: np.ndarray) -> np.ndarray:
        """Return float32 (N, D)."""
        shape = (self.count, _VLM_WIDTH)
        return np.memmap(self.path, np.float16, "r", shape=shape)[items].astype(np.float32)


def make_reader(size: str, folder: Path, batch_size: int) -> BatchReader:
    """Return a reader over a cache of noise; the files are made once."""
    size_px = SIZES[size].size_px
    count = _CACHE_MIB[size] * 2**20 // (3 * size_px**2)
    path, vlm_path = folder / f"{size}.npy", folder / f"{size}.vectors"
    rng = np.random.default_rng(0)
    if not path.exists():
        images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, size_px, size_px, 3))
        for start in range(0, count, 1000):
            images[start : start + 1000] = rng.integers(
                0, 256, images[start : start + 1000].shape, np.uint8
            )
        images.flush()
        rng.standard_normal((count, _VLM_WIDTH), np.float32).astype(np.float16).tofile(vlm_path)
    ages = np.random.default_rng(1).uniform(3, 90, count).astype(np.float32)
    people = np.arange(count)
    third = count // 3
    people[:third] //= 3
    data = FaceData(
        np.load(path, mmap_mode="r"), np.arange(count), np.full(count, -1),
        tuple(f"{index:064x}" for index in range(count)), ages,
        np.full(count, 9.0, np.float32), np.minimum(ages // 10, 9).astype(np.int64), people,
    )  # fmt: skip
    sampler = Sampler(data, TrainConfig(batch_size=batch_size), list(ANCHORS_YEARS))
    return BatchReader(sampler, Vectors(vlm_path, count), 0.3)  # type: ignore[arg-type]


@dataclass
class TrainingStep:
    """Everything that a step computes, on batches as the loader gives them."""

    size: str
    device: torch.device

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        settings = SIZES[self.size]
        self.config = TrainConfig()
        vlm = type(settings)(**{**vars(settings), "vlm_dim": _VLM_WIDTH})
        self.model = AgeTransformer(vlm).to(self.device)
        self.discriminator = Discriminator(settings).to(self.device)
        self.aligner = PairAligner().to(self.device)
        regressor, embedder = AgeRegressor(32, 64), IdentityEmbedder(32, 64)
        for network in (regressor, embedder):
            network.to(self.device).eval().requires_grad_(False)
        self.guidance = Guidance(regressor, embedder)
        learned = [*self.model.parameters(), *self.aligner.parameters()]
        self.optimizers = (torch.optim.AdamW(learned, 1e-5),
                           torch.optim.AdamW(self.discriminator.parameters(), 1e-5))  # fmt: skip

    def __call__(self, loaded: Loaded) -> None:
        """Take one step on a batch."""
        on = to_device(loaded, self.device)
        data = StepData(
            on.source,
            on.ages,
            on.target,
            on.has_target,
            on.variance,
            on.vlm,
            0.5,
            loaded.step,
            True,
        )
        bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
        self.discriminator.requires_grad_(False)
        with bf16:
            parts, rendered = objective.generator_losses(
                self.model, self.discriminator, self.aligner, self.guidance, data,
                self.config.losses,
            )  # fmt: skip
        self._take(0, objective.total_loss(parts, self.config.losses))
        self.discriminator.requires_grad_(True)
        fake, ages = objective.adversarial_fakes(rendered, data)
        with bf16:
            parts = objective.discriminator_losses(
                self.discriminator, fake.detach(), ages, data, loaded.step % 16 == 0
            )
        self._take(1, torch.stack(list(parts.values())).sum())

    def _take(self, which: int, loss: torch.Tensor) -> None:
        optimizer = self.optimizers[which]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def count_flops(self, loaded: Loaded) -> float:
        """Return the FLOPs of a step, forwards and backwards; R1, every sixteenth, left out."""
        from torch.utils.flop_counter import FlopCounterMode

        flops = []
        for step in (1, 2, 3):  # the cycle is in one of three
            with FlopCounterMode(display=False) as counter:
                self(Loaded(step, loaded.tensors))
            flops.append(counter.get_total_flops())
        return sum(flops) / len(flops)


def gpu_busy(
    size: str, reader: BatchReader, num_workers: int, seconds: float
) -> tuple[float, float]:
    """Return images/s of a training on the GPU, and the share of its time between step events."""
    step = TrainingStep(size, torch.device("cuda"))
    with closing(batches(reader, 0, 10**9, num_workers, pin_memory=True)) as arriving:
        for _ in range(5):
            step(next(arriving))
        torch.cuda.synchronize()
        events, started_s = [], time.perf_counter()
        while time.perf_counter() - started_s < seconds:
            loaded = next(arriving)
            pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            pair[0].record()
            step(loaded)
            pair[1].record()
            events.append(pair)
        torch.cuda.synchronize()
        wall_s = time.perf_counter() - started_s
    busy_s = sum(a.elapsed_time(b) for a, b in events) / 1000
    return len(events) * reader.sampler.batch_size / wall_s, busy_s / wall_s
