"""Several processes at the same work: one partition together, and shards side by side.

`rows()` is part of `make bench`. The stage `predict` reads faces with a ResNet50 of full size
(random weights: its ages mean nothing, its cost does), one thread a process, so that twice the
processes could do twice the work. Processes are started, imported and warm before the clock starts,
except the one that a run starts by itself (`runtime.num_workers=2`), whose start is part of what
it costs.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from benchmarks.corpus import write_faces, write_images
from benchmarks.rows import Row

_REPOSITORY = Path(__file__).resolve().parents[1]
_PARTITION = "ffhq_aging"
_NUM_IMAGES = 480
_CHUNK = 8
_NUM_SHARDS, _IN_A_SHARD = 20, 20
_LEDGER_ROWS = 20_000
_WANTED_TIMES = 1.8
_MOST_OVERHEAD = 0.01
"""Of what an image costs in `predict`, that the ledger may cost."""


def rows() -> Iterator[Row]:
    """Measure one partition by one and by two processes, 20 shards by the same, and the ledger."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder / "made")
        one, two = (_run(folder, f"partition-{n}", [f"partition:{n}"]) for n in (1, 2))
        yield _row(
            "predict, one partition, two processes", one, two, _NUM_IMAGES,
            f"ResNet50 at 224 px, fp32, one thread a process, {_NUM_IMAGES} faces in chunks of "
            f"{_CHUNK}; the start of the second process counts. As wanted: also the tables are "
            "equal byte for byte.",
        )  # fmt: skip
        one, two = (_run(folder, f"shards-{n}", ["shards"] * n) for n in (1, 2))
        yield _row(
            f"predict, {_NUM_SHARDS} shards, two processes", one, two, _NUM_SHARDS * _IN_A_SHARD,
            f"The same command twice over {_NUM_SHARDS} shards of {_IN_A_SHARD} faces; each takes "
            "those that the other is not at.",
        )  # fmt: skip
        yield _ledger(folder, one[0] / (_NUM_SHARDS * _IN_A_SHARD))


Measured = tuple[float, float, dict[str, str]]
"""Seconds by the wall clock and of the processor, and the hashes of the tables."""


def _row(stage: str, one: Measured, two: Measured, num: int, note: str) -> Row:
    return Row(
        stage,
        "images",
        ours_s=(two[0] / num, two[1] / num),
        peer="one process",
        peer_s=(one[0] / num, one[1] / num),
        wanted_times=_WANTED_TIMES,
        holds=one[2] == two[2] and bool(one[2]),
        note=note,
    )


def _prepare(root: Path) -> None:
    import numpy as np

    from agetf_pipeline.core.weights import save_weights
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.data.schemas import IMAGES
    from agetf_pipeline.data.tables import read_table, write_table
    from agetf_pipeline.experts.training import build_module

    workspace, expert = Workspace(root), _config(root).train_experts.experts["resnet50"]
    save_weights(
        workspace.models / "experts" / "resnet50" / "weights.safetensors",
        build_module("resnet50", expert, np.full(1, 40.0), seed=0),
        {
            "architecture": "resnet50", "size": expert.size, "input_px": expert.input_px,
            "profile": "imagenet", "trained_on": "random weights",
        },
    )  # fmt: skip
    files = write_faces(workspace.raw_ffhq, 32, 256)
    paths = [workspace.relative(file) for file in files]
    sizes = {_PARTITION: _NUM_IMAGES, "caf/warm": 2}
    sizes |= {f"caf/s{n:03d}": _IN_A_SHARD for n in range(_NUM_SHARDS)}
    for seed, (partition, num_images) in enumerate(sizes.items()):
        write_images(workspace, partition, num_images, paths, seed)
        table = read_table(workspace, IMAGES, [partition])
        # Crops: their ids are not the hashes of these few files.
        table = table.with_columns(path=pl.col("path") + ".original")
        write_table(workspace, IMAGES, partition, table)


def _config(root: Path, num_workers: int = 1):
    from agetf_pipeline.config import PipelineConfig

    return PipelineConfig.model_validate(
        {
            "workspace": {"root": str(root)},
            "runtime": {"device": "cpu", "num_threads": 1, "num_workers": num_workers},
            "predict": {"chunk_size": _CHUNK, "batch_size": 8},
            "train_experts": {"experts": {"resnet50": {"size": "full", "input_px": 224}}},
        }
    )


def _run(folder: Path, name: str, jobs: Sequence[str]) -> Measured:
    """Run processes side by side in a copy of the workspace; the clock starts when all are warm."""
    root = folder / name
    shutil.copytree(folder / "made", root)
    command = [sys.executable, "-m", "benchmarks.workers", str(root)]
    processes = [
        subprocess.Popen([*command, job, str(n)], cwd=_REPOSITORY, stdout=subprocess.PIPE)
        for n, job in enumerate(jobs)
    ]
    for number in range(len(jobs)):
        while not (root / f"ready-{number}").exists():
            if processes[number].poll() is not None:
                raise SystemExit(f"a process of {name} ended before it began")
            time.sleep(0.05)
    (root / "go").touch()
    printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"a process of {name} failed")
    results = [json.loads(text.splitlines()[-1]) for text in printed]
    tables = root / "data" / "tables" / "predictions"
    hashes = {
        path.relative_to(tables).as_posix(): _hash(path)
        for path in sorted(tables.rglob("*.parquet"))
        if path.stem != "warm"
    }
    wall_s = max(result["ended"] for result in results) - min(r["began"] for r in results)
    shutil.rmtree(root)
    return wall_s, sum(result["processor_s"] for result in results), hashes


def _hash(path: Path) -> str:
    from agetf_pipeline.core.hashing import hash_file

    return hash_file(path)


def _be_one(root: Path, job: str, number: str) -> None:
    """Be one of the processes: get warm, wait for the start, work, and print what it took."""
    from agetf_pipeline.core.devices import prepare_process
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.stages import predict
    from agetf_pipeline.stages.catalogue import run_stage
    from agetf_pipeline.stages.joining import unclaimed_first

    prepare_process()
    workspace = Workspace(root)
    what, _, num_workers = job.partition(":")
    config = _config(root, int(num_workers or 1))
    predict.run(config, workspace, "caf/warm")
    (root / f"ready-{number}").touch()
    while not (root / "go").exists():
        time.sleep(0.005)
    began, used_s = time.time(), _processor_s()
    if what == "partition":
        run_stage("predict", config, workspace, _PARTITION)
    else:
        shards = [f"caf/s{n:03d}" for n in range(_NUM_SHARDS)]
        for shard in unclaimed_first(workspace, "predict", shards):
            run_stage("predict", config, workspace, shard)
    result = {"began": began, "ended": time.time(), "processor_s": _processor_s() - used_s}
    print(json.dumps(result))


def _processor_s() -> float:
    """Seconds of the processor, of this process and of those that it has waited for."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def _ledger(folder: Path, image_s: float) -> Row:
    """Time what surrounds the computing of a partition's rows: the board, parts, and the merge."""
    import pyarrow as pa

    from agetf_pipeline.core.work import StageReport, run_once
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.data.incremental import update_table
    from agetf_pipeline.data.schemas import PREDICTIONS
    from agetf_pipeline.data.tables import empty_frame, write_table

    workspace = Workspace(folder / "ledger")
    ids = pl.Series([f"{n * 2654435761 % 2**32:08x}".zfill(64) for n in range(_LEDGER_ROWS)])
    wanted = pl.DataFrame({"image_id": ids}).with_columns(
        expert=pl.lit("resnet50"), model_version=pl.lit("1"), status=pl.lit("ok")
    )
    schema = empty_frame(PREDICTIONS).schema
    bins = pa.array([[1 / 101] * 101] * 64, pa.list_(pa.float32()))
    distribution = pl.Series(values=bins)

    def compute(chunk: pl.DataFrame) -> pl.DataFrame:
        given = chunk.with_columns(distribution=pl.Series(distribution[: chunk.height]))
        absent = [pl.lit(None).alias(name) for name in schema if name not in given.columns]
        return given.with_columns(absent).select(list(schema)).cast(dict(schema.items()))

    def bare() -> None:
        frames = [compute(chunk) for chunk in wanted.iter_slices(64)]
        write_table(Workspace(folder / "bare"), PREDICTIONS, _PARTITION, pl.concat(frames))

    def work() -> StageReport:
        update_table(workspace, PREDICTIONS, _PARTITION, wanted, compute, 64, "ledger")
        return StageReport("predict")

    def ours() -> None:
        run_once(workspace, "predict", {}, "1", {}, work, _PARTITION)

    times = []
    for function in (bare, ours):
        began_s, used_s = time.perf_counter(), time.process_time()
        function()
        taken = time.perf_counter() - began_s, time.process_time() - used_s
        times.append((taken[0] / _LEDGER_ROWS, taken[1] / _LEDGER_ROWS))
    overhead_s = times[1][0] - times[0][0]
    return Row(
        "the ledger of a partition",
        "rows",
        ours_s=times[1],
        ceiling="the same rows collected and written once",
        ceiling_s=times[0],
        holds=overhead_s <= _MOST_OVERHEAD * image_s,
        note=f"{_LEDGER_ROWS:,} rows that cost nothing to compute, in chunks of 64, each a part "
        f"flushed to the disk: {1000 * overhead_s:.3f} ms a row more than the bare loop. As "
        f"wanted: at most {_MOST_OVERHEAD:.0%} of the {1000 * image_s:.0f} ms that one face costs "
        "above.",
    )


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("this module is run by `python -m benchmarks workers`")
    _be_one(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
