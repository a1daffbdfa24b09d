"""What grows: memory with the number of images, cost an image with the number of shards.

    python -m benchmarks growth
    python -m benchmarks.growth [--sizes 1000 50000] [--num-shards 1000] [--stages ingest ...]

Memory: the pipeline over one shard of small faces, with tiny networks of random weights; each stage
in a process of its own, whose peak is taken together with those of its workers. Shards: the
stages over many shards of eight faces each, in one process that is warm. What is claimed are
ratios; by processor time, children's included, where it is about cost.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.clock import measured_apart, peak_memory, peak_mib
from benchmarks.growth_workspace import (
    FACE_PX,
    config_of,
    copy_tables,
    small_faces,
    write_networks,
    write_shard,
)
from benchmarks.rows import Row

SIZES, NUM_SHARDS = (1_000, 50_000), 1_000
_WITHIN = 1.1
_THIS = "benchmarks.growth"
_SHARD_IMAGES = 8
_ROOM_BYTES = 4 * 2**30
_STAGES = ("ingest", "predict", "relabel", "filter", "enhance", "recheck", "caption", "assemble")
_OVER_ALL = ("relabel", "assemble")
"""Without Janus, which reads a face in 5 ms even when it is tiny; it writes the captions."""


def rows(
    sizes: tuple[int, ...] = SIZES,
    num_shards: int = NUM_SHARDS,
    stages: tuple[str, ...] = _STAGES,
) -> Iterator[Row]:
    """Yield the rows of the table."""
    yield from _memory_rows(sizes, stages)
    if num_shards:
        yield from _shard_rows(num_shards, stages)


def _memory_rows(sizes: tuple[int, ...], stages: tuple[str, ...]) -> Iterator[Row]:
    found: dict[str, dict[int, dict[str, float]]] = {stage: {} for stage in stages}
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        for size in sizes:
            root = Path(folder) / f"{size}"
            _prepare(root, size)
            # All of them run, each on what the one before left.
            for stage in _STAGES[: max(_STAGES.index(name) for name in stages) + 1]:
                measured = measured_apart(_THIS, ["--measure", stage, str(root)])
                if stage in found:
                    found[stage][size] = measured
                print(
                    f"  {stage:9s} {size:7,d} images: {measured['wall_s']:6.1f} s, "
                    f"{measured['processor_s']:6.1f} s of the processor, peak "
                    f"{measured['peak_mib']:,.0f} MiB",
                    flush=True,
                )
    least, most = min(sizes), max(sizes)
    for stage, by_size in found.items():
        growth = by_size[most]["peak_mib"] / by_size[least]["peak_mib"]
        each = [by_size[most][name] / most for name in ("wall_s", "processor_s")]
        yield Row(
            stage=f"memory of {stage}, {least:,} to {most:,} images",
            unit="images",
            ours_s=(each[0], each[1]),
            peak_mib=by_size[most]["peak_mib"],
            holds=growth <= _WITHIN,
            note=f"{growth:.2f} times the memory, wanted at most {_WITHIN}: "
            f"{by_size[least]['peak_mib']:,.0f} MiB at {least:,} images. Tiny networks of random "
            f"weights, {FACE_PX} px faces: the rate is not that of real ones.",
        )


def _shard_rows(num_shards: int, stages: tuple[str, ...]) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        chosen = [name for name in _STAGES if name in stages]
        spent = measured_apart(_THIS, ["--shards", str(num_shards), folder, *chosen])
    tenth = max(10, num_shards // 10)
    for stage, seconds in spent.items():
        if stage in _OVER_ALL:
            few, many = seconds[0] / (10 * _SHARD_IMAGES), seconds[1] / (num_shards * _SHARD_IMAGES)
            growth, what = many / few, f"{num_shards:,} shards over 10 shards, in all"
            each = many
        else:
            # Medians: a collection of garbage, or a neighbour, falls on single shards.
            first, last = (statistics.median(part) for part in (seconds[:tenth], seconds[-tenth:]))
            growth, what = last / first, f"the last {tenth} shards over the first {tenth}"
            each = last / _SHARD_IMAGES
        yield Row(
            stage=f"cost an image of {stage}, 1 to {num_shards:,} shards",
            unit="images",
            ours_s=(each, each),
            holds=growth <= _WITHIN,
            note=f"{growth:.2f} times, {what}, wanted at most {_WITHIN}; by processor time. "
            f"Shards of {_SHARD_IMAGES} faces, tiny networks of random weights; between the first "
            "and the last tenth of the shards, all tables but `images` are copies.",
        )


def _folder() -> str | None:
    """Return a folder in memory, where there is one with room.

    Each picture is brought to the disk before a row tells of it: waiting for a slow one, twice an
    image, would take most of the time, and says nothing of memory or of the processor.
    """
    memory = Path("/dev/shm")
    enough = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM_BYTES
    return str(memory) if enough else None


def _prepare(root: Path, num_images: int) -> None:
    """Write the networks and one shard of files."""
    from agetf_pipeline.core.workspace import Workspace

    workspace = Workspace(root)
    write_networks(workspace)
    write_shard(workspace, "s0", num_images, small_faces())


def _run_stage(stage: str, config, workspace, partition: str) -> None:
    import importlib

    module = importlib.import_module(f"agetf_pipeline.stages.{stage}")
    if stage == "caption":
        config = config_of(workspace.root, ("janus",))
    if stage in _OVER_ALL:
        module.run(config, workspace)
    else:
        module.run(config, workspace, partition)


def _processor_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@dataclass
class _Workers:
    mib: float = 0.0


@contextlib.contextmanager
def _peak_of_workers() -> Iterator[_Workers]:
    """Look at the child processes while the block runs: the greatest sum of their peaks.

    What the system keeps of children that ended counts each from its fork, as large as its parent.
    """
    found, ended = _Workers(), threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            found.mib = max(found.mib, sum(map(peak_mib, _children(os.getpid()))))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, file.read_text().split()):
                found += [child, *_children(child)]
    return found


def _measure(stage: str, root: Path) -> dict[str, float]:
    """Run one stage over the shard in this process."""
    from agetf_pipeline.core.devices import prepare_process
    from agetf_pipeline.core.workspace import Workspace

    prepare_process()
    started_s, spent_s = time.perf_counter(), _processor_s()
    with peak_memory() as peak, _peak_of_workers() as workers:
        _run_stage(stage, config_of(root), Workspace(root), "caf/s0")
    return {
        "peak_mib": peak.mib + workers.mib,
        "wall_s": time.perf_counter() - started_s,
        "processor_s": _processor_s() - spent_s,
    }


def _measure_shards(num_shards: int, root: Path, stages: list[str]) -> dict[str, list[float]]:
    """Run the stages over every shard; return seconds of the processor of each shard.

    Of the stages that run over all shards at once: over 10 shards, and over all.
    """
    from agetf_pipeline.core.devices import prepare_process
    from agetf_pipeline.core.workspace import Workspace

    prepare_process()
    workspace, config, faces = Workspace(root), config_of(root), small_faces()
    write_networks(workspace)
    shards = [f"s{number:04d}" for number in range(num_shards)]
    for shard in shards:
        write_shard(workspace, shard, _SHARD_IMAGES, faces)
    last = max(_STAGES.index(name) for name in stages)
    spent: dict[str, list[float]] = {}
    tenth = max(10, num_shards // 10)
    between = shards[tenth:-tenth]
    parts = [part for part in (shards[:10], shards[10:tenth], shards[-tenth:]) if part]
    for place, part in enumerate(parts):
        is_last = place == len(parts) - 1
        # What is between is taken in, and its other tables are copied: a thousand shards through
        # every stage would take half an hour.
        for shard in between if is_last else []:
            before_s = _processor_s()
            _run_stage("ingest", config, workspace, f"caf/{shard}")
            spent["ingest"].append(_processor_s() - before_s)
            copy_tables(workspace, f"caf/{shards[0]}", f"caf/{shard}")
        for stage in _STAGES[: last + 1]:
            started_s, times = time.perf_counter(), spent.setdefault(stage, [])
            if stage in _OVER_ALL and place > 0 and not is_last:
                times = []  # what comes after needs it; it counts over 10 shards, and over all
            for shard in ["all"] if stage in _OVER_ALL else part:
                before_s = _processor_s()
                _run_stage(stage, config, workspace, f"caf/{shard}")
                times.append(_processor_s() - before_s)
            print(
                f"  {stage:9s} up to {part[-1]}: {time.perf_counter() - started_s:6.1f} s",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    return {stage: times for stage, times in spent.items() if stage in stages}


def main() -> None:
    """Print rows that are asked for, or measure one thing."""
    import logging

    from benchmarks.rows import table

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--num-shards", type=int, default=NUM_SHARDS)
    parser.add_argument("--stages", nargs="+", choices=_STAGES, default=list(_STAGES))
    parser.add_argument("--shards-only", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--shards", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure or options.shards:
        logging.getLogger("agetf_pipeline").setLevel(logging.ERROR)
        if options.measure:
            found: object = _measure(options.measure[0], Path(options.measure[1]))
        else:
            number, root, *stages = options.shards
            found = _measure_shards(int(number), Path(root), stages)
        print(json.dumps(found))
        return
    stages = tuple(options.stages)
    if options.shards_only:
        found_rows = list(_shard_rows(options.num_shards, stages))
    else:
        found_rows = list(rows(tuple(options.sizes), options.num_shards, stages))
    print(table(found_rows))


if __name__ == "__main__":
    main()
