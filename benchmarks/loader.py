"""Whether batches are read faster than a training step needs them.

    python -m benchmarks loader
    python -m benchmarks.loader [--seconds 8] [--assumed-tflops 300]

The first gives two rows of `make bench`: a training with its batches read beside it, over the bare
step on a batch that is there already, and the step's FLOP/s over those of a large matrix product.
The second looks closer, at reading alone.

Faces are noise in a cache as training's is, a third of them of people with three images, a vector
of 1,024 values for each in place of its caption's. The step is the whole of one: generator with
every loss, discriminator, both optimisers; its networks are untrained, which changes no cost.

On the CPU the headline is a ratio of processor time: what the step computes on an image over what
reading it takes, on one core; it holds on a machine that others use, too. Beside it stand images
per second of wall clock, and the share of a training's time that is spent waiting for a batch.

For a GPU that is not at hand, what its step needs is an assumption, from the step's counted FLOPs;
where there is one, the busy share is measured: the time between the events around each step over
the time of the whole run.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.core.devices import prepare_process, set_num_threads
from benchmarks.clock import in_turns, peak_memory
from benchmarks.processor import matmul_flops
from benchmarks.rows import LEAST_SHARE, Row, seconds_of

if TYPE_CHECKING:  # how threads wait is set before torch is loaded
    from agetf_pipeline.training.loading import BatchReader
    from benchmarks.training_step import TrainingStep

_NUM_ROUNDS = 2
_STEPS = {"tiny-64": range(1, 10), "base-128": range(1, 4)}
"""Of a round. The cycle loss is in one of three, R1, which is in every sixteenth, in none."""


def main() -> None:
    """Measure both sizes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--assumed-tflops", type=float, default=300.0,
                        help="that an H200 sustains in bf16, of 989 at its peak")  # fmt: skip
    options = parser.parse_args()
    prepare_process()
    set_num_threads(None)
    with tempfile.TemporaryDirectory(dir=os.environ.get("AGETF_BENCH_DIR")) as folder:
        for size in _STEPS:
            _report(size, Path(folder), options.seconds, options.assumed_tflops)


def rows() -> Iterator[Row]:
    """Yield a row for each size: training as a share of its bare step."""
    prepare_process()
    set_num_threads(None)
    with tempfile.TemporaryDirectory(dir=os.environ.get("AGETF_BENCH_DIR")) as folder:
        for size in _STEPS:
            yield _row(size, Path(folder))


def _row(size: str, folder: Path) -> Row:
    """Measure a training, and its step alone, on the CPU; on a GPU too where there is one."""
    import torch

    from agetf_pipeline.training.loading import Loaded, batches
    from benchmarks.training_step import (
        BATCH_SIZE,
        CPU_STEP_BATCH,
        TrainingStep,
        gpu_busy,
        make_reader,
    )

    reader = make_reader(size, folder, CPU_STEP_BATCH[size])
    step, steps = TrainingStep(size, torch.device("cpu")), _STEPS[size]
    first = next(batches(reader, 0, 1))
    flop = step.count_flops(first)  # these steps are the first, which cost more
    waited_s = 0.0

    def bare() -> None:
        for number in steps:
            step(Loaded(number, first.tensors))

    def ours() -> None:
        nonlocal waited_s
        for number in steps:
            asked_s = time.perf_counter()
            loaded = next(arriving)
            waited_s += time.perf_counter() - asked_s
            step(Loaded(number, loaded.tensors))

    num_images = len(steps) * reader.sampler.batch_size
    with closing(batches(reader, 0, 10**9)) as arriving, peak_memory() as peak:
        next(arriving)
        clocks = in_turns({"bare": (bare, num_images), "ours": (ours, num_images)}, _NUM_ROUNDS)
    # As the step computes on a CPU: fp32. Of its own time, as others may use the machine.
    product = matmul_flops(torch.float32)[0]
    image_flop = flop / reader.sampler.batch_size
    reached = [image_flop / seconds for seconds in seconds_of(clocks["bare"])]
    note = (
        f"batches of {reader.sampler.batch_size}, {torch.get_num_threads()} threads, fp32; "
        f"{waited_s / sum(clocks['ours'].wall_s):.2%} of the training's time is spent waiting for "
        f"a batch; the step is {image_flop / 1e9:.1f} GFLOP an image and runs at "
        f"{reached[0] / 1e9:.0f} GFLOP/s ({reached[1] / 1e9:.0f} a core), "
        f"{reached[0] / product[0]:.0%} ({reached[1] / product[1]:.0%}) of what a large matrix "
        "product reaches here"
    )
    if torch.cuda.is_available():
        rate, busy = gpu_busy(size, make_reader(size, folder, BATCH_SIZE[size]), 2, 8.0)
        note += f"; {torch.cuda.get_device_name()}: {rate:,.0f} images/s, busy {busy:.1%}"
    else:
        note += "; no GPU at hand"
    return Row(
        f"train: batches read, {size}",
        "images",
        seconds_of(clocks["ours"]),
        ceiling="bare step",
        ceiling_s=seconds_of(clocks["bare"]),
        wanted_share=LEAST_SHARE,
        peak_mib=peak.mib,
        note=note,
    )


def _report(size: str, folder: Path, seconds: float, assumed_tflops: float) -> None:
    import torch

    from agetf_pipeline.training.loading import batches
    from benchmarks.training_step import BATCH_SIZE, CPU_STEP_BATCH, TrainingStep, make_reader

    print(f"{size}, batches of {BATCH_SIZE[size]}")
    step_batch = CPU_STEP_BATCH[size]
    small = make_reader(size, folder, step_batch)
    files = sorted(folder.iterdir())
    cpu = TrainingStep(size, torch.device("cpu"))
    first = next(batches(small, 0, 1))
    cpu(first)
    need = _rate(lambda: cpu(first), step_batch, seconds)
    print(f"  the step alone, CPU, {torch.get_num_threads()} threads, fp32, batches of "
          f"{step_batch}: {1000 / need.per_cpu_s:.1f} ms of a core an image, "
          f"{need.per_s:.1f} images/s")  # fmt: skip
    reader = make_reader(size, folder, BATCH_SIZE[size])
    assumed = None
    if size != "tiny-64":
        tflop = cpu.count_flops(first) / 1e12 / step_batch
        assumed = assumed_tflops / tflop
        print(f"  an H200's step needs {assumed:.0f} images/s, ASSUMING {assumed_tflops:g} TFLOP/s "
              f"at {tflop:.3f} TFLOP counted an image; not measured")  # fmt: skip
    for kind, num_workers in (("a thread", 1), ("2 processes", 2)):
        for state in ("in memory", "dropped"):
            if state == "dropped":
                for file in files:
                    drop_from_memory(file)
            else:
                _touch(reader)
            rate = _loader_rate(reader, num_workers, seconds)
            line = f"  loader, {kind:11s} cache {state:9s}: {rate.per_s:7.0f} images/s"
            if num_workers == 1:  # the processes' own time is not this one's
                ratio = rate.per_cpu_s / need.per_cpu_s
                line += f", {1000 / rate.per_cpu_s:6.3f} ms of a core an image:"
                line += f" {ratio:6.0f} x the CPU step's need (at least 2 wanted)"
            if assumed is not None:
                line += f"; {rate.per_s / assumed:5.1f} x the assumed GPU's"
            print(line)
    for kind, num_workers in (("a thread", 1), ("2 processes", 2)):
        waiting = _waiting_share(cpu, small, num_workers, seconds)
        print(f"  training on the CPU, {kind:11s} reading ahead: {waiting:.2%} of the time waiting "
              "for a batch")  # fmt: skip
    if torch.cuda.is_available():
        _report_gpu(size, reader, seconds)
    else:
        print("  GPU busy share: not measured, there is no GPU here")
    for file in files:
        file.unlink()


def drop_from_memory(file: Path) -> None:
    """Ask the kernel to forget a file's pages; it keeps those that somebody has mapped."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass(frozen=True)
class Rate:
    """Images per second of wall clock, and per second of this process's processor time."""

    per_s: float
    per_cpu_s: float


def _rate(work: Callable[[], object], num_images: int, seconds: float) -> Rate:
    started_s, started_cpu_s, count = time.perf_counter(), time.process_time(), 0
    while count < 2 or time.perf_counter() - started_s < seconds:
        work()
        count += 1
    num_images *= count
    cpu_s = time.process_time() - started_cpu_s
    return Rate(num_images / (time.perf_counter() - started_s), num_images / cpu_s)


def _touch(reader: "BatchReader") -> None:
    """Bring the cache into memory."""
    for step in range(0, len(reader.sampler.data), 512):
        reader.sampler.data.images[step : step + 512].max()


def _loader_rate(reader: "BatchReader", num_workers: int, seconds: float) -> Rate:
    """Measure with nobody computing; starting the workers does not count."""
    from agetf_pipeline.training.loading import batches

    with closing(batches(reader, 0, 10**9, num_workers)) as arriving:
        for _ in range(8):  # past what was read ahead before anybody asked
            next(arriving)
        return _rate(lambda: next(arriving), reader.sampler.batch_size, seconds)


def _waiting_share(
    step: "TrainingStep", reader: "BatchReader", num_workers: int, seconds: float
) -> float:
    """Return the share of a training's time that is spent waiting for batches."""
    from agetf_pipeline.training.loading import batches

    with closing(batches(reader, 0, 10**9, num_workers)) as arriving:
        step(next(arriving))
        waited_s, count, started_s = 0.0, 0, time.perf_counter()
        while count < 2 or time.perf_counter() - started_s < seconds:
            asked_s = time.perf_counter()
            loaded = next(arriving)
            waited_s += time.perf_counter() - asked_s
            step(loaded)
            count += 1
        return waited_s / (time.perf_counter() - started_s)


def _report_gpu(size: str, reader: "BatchReader", seconds: float) -> None:
    """Print the share of a run in which the GPU was between a step's first and last kernel."""
    import torch

    from benchmarks.training_step import gpu_busy

    for num_workers in (1, 2, 4):
        rate, busy = gpu_busy(size, reader, num_workers, seconds)
        print(f"  GPU {torch.cuda.get_device_name()}, {num_workers} reading: {rate:8.0f} images/s, "
              f"busy {busy:6.1%} (at least 90 % wanted)")  # fmt: skip


if __name__ == "__main__":
    main()
