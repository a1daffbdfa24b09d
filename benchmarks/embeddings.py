"""Embeddings of captions read at random, beside the whole column in memory.

    python -m benchmarks.embeddings [--rounds 3]

A synthetic table of 50,000 images in five partitions, 2048 values an image. Random reads by
image_id through a DataLoader with two workers, from the mapped files; and, each in a process of its
own, the time to the first embedding and the memory that it takes, against the whole Parquet column
read and indexed. The files are warm on both sides: what is compared is not the disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

_NUM_IMAGES, _NUM_PARTITIONS, _WIDTH = 50_000, 5, 2048
_READ_AT_ONCE = 256


def main() -> None:
    """Run the benchmark, or one process of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embeddings")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("stats/bench_embeddings.json"))
    parser.add_argument("--first", nargs=2, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.first is not None:
        _measure_first(options.first[0], Path(options.first[1]))
        return

    from agetf_pipeline.core.files import write_json

    with tempfile.TemporaryDirectory() as folder:
        result = _embeddings(Path(folder), options.rounds)
    write_json(options.json, {"synthetic": True, **result})
    print(f"written: {options.json}")


class ByImageId:
    """Embeddings of images by number, for a DataLoader, looked up by image_id."""

    def __init__(self, store: Any, image_ids: list[str]) -> None:
        self.store, self.image_ids = store, image_ids

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitems__(self, items: list[int]) -> Any:
        """Return embeddings (N, D) of a batch that a DataLoader asks for."""
        import torch

        return torch.from_numpy(self.store.of([self.image_ids[item] for item in items]))


def _as_it_is(batch: Any) -> Any:
    return batch


def _embeddings(folder: Path, rounds: int) -> dict[str, Any]:
    import torch
    from torch.utils.data import DataLoader

    from agetf_pipeline.captions.cache import EmbeddingStore

    files = _write_embeddings(folder)
    store = EmbeddingStore(files)
    dataset: Any = ByImageId(store, store.image_ids)  # as much of a Dataset as a DataLoader needs
    loader: DataLoader = DataLoader(
        dataset, _READ_AT_ONCE, shuffle=True, num_workers=2,
        collate_fn=_as_it_is, persistent_workers=True, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    rates = []
    for _ in range(rounds + 1):  # the first starts the workers, and is not counted
        started_s = time.perf_counter()
        number = sum(len(batch) for batch in loader)
        rates.append(number / (time.perf_counter() - started_s))
        assert number == _NUM_IMAGES
    sides: dict[str, list[dict[str, float]]] = {"mapped": [], "column": []}
    for _ in range(rounds):
        for side, found in sides.items():
            command = [sys.executable, "-m", "benchmarks.embeddings", "--first", side, str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    middle = {
        side: {name: median(each[name] for each in found) for name in found[0]}
        for side, found in sides.items()
    }
    mapped, column = middle["mapped"], middle["column"]
    result = {
        "embeddings_per_s": median(rates[1:]), **middle,
        "first_ratio": column["first_s"] / mapped["first_s"],
        "memory_ratio": column["peak_mib"] / mapped["peak_mib"],
    }  # fmt: skip
    print(
        f"embeddings of {_NUM_IMAGES} images, {_WIDTH} float16, {_NUM_PARTITIONS} partitions\n"
        f"  random order by image_id, DataLoader of 2 workers: {result['embeddings_per_s']:,.0f} "
        "embeddings/s (at least 20,000 wanted)\n"
        f"  first embedding: mapped {1000 * mapped['first_s']:.0f} ms, whole column "
        f"{1000 * column['first_s']:.0f} ms: {result['first_ratio']:.1f} times as long\n"
        f"  memory for it beyond the imports: mapped {mapped['peak_mib']:.0f} MiB, whole column "
        f"{column['peak_mib']:.0f} MiB: {result['memory_ratio']:.1f} times as much\n"
        f"  (mapped, after 5,000 random ones: {mapped['more_mib']:.0f} MiB, pages of the files "
        "that the system may drop)",
        flush=True,
    )
    return result


def _version() -> Any:
    from agetf_pipeline.captions.versions import CaptionVersion

    return CaptionVersion("synthetic", "0" * 16)


def _write_embeddings(folder: Path) -> list[Path]:
    """Write the table `captions` with random embeddings, and its mapped files."""
    import polars as pl
    import pyarrow as pa

    from agetf_pipeline.captions.cache import ensure_index
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.data.schemas import CAPTIONS
    from agetf_pipeline.data.tables import write_table

    workspace, version, rng = Workspace(folder), _version(), np.random.default_rng(0)
    number, files = _NUM_IMAGES // _NUM_PARTITIONS, []
    for part in range(_NUM_PARTITIONS):
        name = f"caf/shard-{part:04d}"
        values = rng.standard_normal(number * _WIDTH, np.float32).astype(np.float16)
        offsets = np.arange(number + 1, dtype=np.int32) * _WIDTH
        columns = {
            "image_id": sorted(rng.bytes(32).hex() for _ in range(number)),
            "model_version": [version.model_version] * number,
            "prompt_hash": [version.prompt_hash] * number,
            "prompt": ["Describe the face."] * number,
            "status": ["ok"] * number,
            "image_embedding": pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)),
        }
        absent = [each for each in CAPTIONS.schema.names if each not in columns]
        columns |= {each: pa.nulls(number, CAPTIONS.schema.field(each).type) for each in absent}
        frame = pl.from_arrow(pa.table(columns).select(CAPTIONS.schema.names))
        assert isinstance(frame, pl.DataFrame)
        write_table(workspace, CAPTIONS, name, frame)
        index = ensure_index(workspace, name, version)
        assert index is not None
        files.append(index)
    return files


def _measure_first(side: str, folder: Path) -> None:
    """Print the time to the first embedding, and the memory that it takes beyond the imports."""
    import pyarrow.parquet as pq

    from agetf_pipeline.captions.cache import EmbeddingStore, index_path
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.data.schemas import CAPTIONS
    from agetf_pipeline.data.tables import list_partitions, table_path

    workspace, more_mib = Workspace(folder), 0.0
    names = list_partitions(workspace, CAPTIONS)
    before_mib, started_s = _memory_mib("VmRSS"), time.perf_counter()
    if side == "mapped":
        store = EmbeddingStore([index_path(workspace, name, _version()) for name in names])
        first = store.take(np.array([_NUM_IMAGES // 2]))[0]
    else:
        tables = [
            pq.read_table(
                table_path(workspace, CAPTIONS, name), columns=["image_id", "image_embedding"]
            )
            for name in names
        ]
        row_of = {
            image_id: (table, row)
            for table, read in enumerate(tables)
            for row, image_id in enumerate(read["image_id"].to_pylist())
        }
        matrices = [
            np.concatenate(
                [chunk.flatten().to_numpy() for chunk in read["image_embedding"].chunks]
            ).reshape(-1, _WIDTH)
            for read in tables
        ]
        table, row = list(row_of.values())[_NUM_IMAGES // 2]
        first = matrices[table][row]
    first_s, peak_mib = time.perf_counter() - started_s, _memory_mib("VmHWM") - before_mib
    assert len(first) == _WIDTH
    if side == "mapped":
        store.take(np.random.default_rng(0).integers(0, _NUM_IMAGES, 5000))
        more_mib = _memory_mib("VmHWM") - before_mib
    print(json.dumps({"first_s": first_s, "peak_mib": peak_mib, "more_mib": more_mib}))


def _memory_mib(name: str) -> float:
    """Return what the process holds (VmRSS) or held at most (VmHWM); Linux alone tells."""
    # getrusage would count the peak of the process that started this one.
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    main()
