"""Ingest beside one loop over the files, and beside the decoders alone; and ingest of a million.

    python -m benchmarks ingest
    python -m benchmarks.ingest --num-files 1000000 [--folder DIR]
    python -m benchmarks.ingest --num-shards 1000 [--folder DIR]

In the table, ours is the stage as it runs, over files that are all new: listing, hashing, starting
the decoding processes, examining, and both tables. The peer is one loop, a file at a time: sha256,
Pillow, RGB. The ceiling is the same hash and the same full decode of bytes that are in memory
already, in as many processes as there are cores, which have started before the clock does. The
files' pixels are those of a few drawn faces, with noise; a number in a text segment makes each
another file. Processor time is that of all processes, of which the clock of this one knows
nothing: ours are counted when they have ended.

With `--num-files`, that many small distinct pictures are written into folders of a thousand,
ingested in a process of its own, and ingested again; it prints the peak memory of the process that
does it, which holds no picture. With `--num-shards`, that
many shards of a few pictures each are ingested one after the other, and it prints what the last
ones cost beside the first.
"""

import argparse
import io
import json
import multiprocessing
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.clock import measured_apart, peak_memory
from benchmarks.rows import Row

if TYPE_CHECKING:
    from agetf_pipeline.core.work import StageReport

_NUM_PICTURES = 8
_NUM_ROUNDS = 2
_NUM_FILES = {"PNG": 320, "JPEG": 8000}
_SIZE_PX = {"PNG": 1024, "JPEG": 256}


def rows() -> Iterator[Row]:
    """Yield the lines of the table."""
    for kind, size_px in _SIZE_PX.items():
        yield _compare(kind, size_px, _NUM_FILES[kind])


def _compare(kind: str, size_px: int, num_files: int) -> Row:
    pictures = [_draw(kind, size_px, number) for number in range(_NUM_PICTURES)]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = root / "data" / "raw" / "ffhq_aging"
        paths = [
            folder / f"{number // 1000:03d}" / f"{number:05d}.x" for number in range(num_files)
        ]
        contents = [
            _distinct(kind, pictures[number % len(pictures)], number) for number in range(num_files)
        ]
        for path, data in zip(paths, contents, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        sides: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": [], "ceiling": []}
        for _ in range(_NUM_ROUNDS):
            for leftover in (root / "data" / ".state", root / "data" / "tables", root / "stats"):
                shutil.rmtree(leftover, ignore_errors=True)
            sides["ours"].append(_in_process([sys.executable, "-m", "benchmarks.ingest", "--stage",
                                              str(root)]))  # fmt: skip
            sides["peer"].append(_timed(lambda: [_read_one(path) for path in paths]))
            sides["ceiling"].append(_time_ceiling(contents))
    each = {
        name: (sum(w for w, _ in found) / len(found) / num_files,
               sum(p for _, p in found) / len(found) / num_files)
        for name, found in sides.items()
    }  # fmt: skip
    return Row(
        f"ingest: {kind} {size_px} px",
        "files",
        each["ours"],
        "one loop: sha256, Pillow, RGB",
        each["peer"],
        "the same hash and full decode of bytes in memory, a process a core",
        each["ceiling"],
        wanted_share=0.9,
        peak_mib=_peaks[-1],
        note=f"{num_files} files, all new, {len(contents[0]) / 1024:.0f} KiB each; ours starts its "
        "decoding processes within the time; memory is of the process that does it, which decodes "
        "nothing.",
    )


_peaks: list[float] = []


def _in_process(command: list[str]) -> tuple[float, float]:
    """Run ingest in a process of its own; return seconds of its work, without imports."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    _peaks.append(found["peak_mib"])
    return found["wall_s"], found["processor_s"]


def _stage(root: Path, partitions: list[str]) -> None:
    """Ingest partitions, and print what it took."""
    import logging

    from agetf_pipeline.config import PipelineConfig
    from agetf_pipeline.core.workspace import Workspace
    from agetf_pipeline.stages import ingest

    logging.getLogger("agetf_pipeline").setLevel(logging.ERROR)
    workspace = Workspace(root)
    cores = len(os.sched_getaffinity(0))
    config = PipelineConfig.model_validate(
        {"workspace": {"root": str(root)}, "ingest": {"num_workers": cores}}
    )
    before_s = _processor_s()
    # Not what `getrusage` says: that of a process that was just started is its parent's.
    with peak_memory() as peak:
        each_s, report = _run_all(lambda name: ingest.run(config, workspace, name), partitions)
    print(
        json.dumps(
            {
                "wall_s": sum(each_s),
                "processor_s": _processor_s() - before_s,
                "peak_mib": peak.mib,
                "each_s": each_s if len(each_s) > 1 else [],
                "counts": report.counts,
                "status": report.status,
            }
        )
    )


def _run_all(
    run: Callable[[str], "StageReport"], partitions: list[str]
) -> tuple[list[float], "StageReport"]:
    each_s = []
    for partition in partitions:
        started_s = time.perf_counter()
        report = run(partition)
        each_s.append(time.perf_counter() - started_s)
    return each_s, report


def _processor_s() -> float:
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    started_s, processor_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started_s, time.process_time() - processor_s


def _read_one(path: Path) -> object:
    return _look(path.read_bytes(), to_rgb=True)


def _look(data: bytes, to_rgb: bool = False) -> object:
    import hashlib

    from PIL import Image

    digest = hashlib.sha256(data).hexdigest()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return digest, image.convert("RGB").size if to_rgb else image.size


_held: list[bytes] = []


def _time_ceiling(contents: list[bytes]) -> tuple[float, float]:
    """Time hash and decode of bytes that processes hold already, from a common start."""
    cores = len(os.sched_getaffinity(0))
    shares = [contents[place::cores] for place in range(cores)]
    context = multiprocessing.get_context("fork")
    processor_s = 0.0
    wall_s = 0.0
    pools = []
    for share in shares:
        _held[:] = share
        pool = ProcessPoolExecutor(1, mp_context=context)
        pool.submit(_look, share[0]).result()  # started, and imported
        pools.append(pool)
    started_s = time.perf_counter()
    for done in [pool.submit(_look_at_held) for pool in pools]:
        processor_s += done.result()
    wall_s = time.perf_counter() - started_s
    for pool in pools:
        pool.shutdown()
    _held.clear()
    return wall_s, processor_s


def _look_at_held() -> float:
    before_s = time.process_time()
    for data in _held:
        _look(data)
    return time.process_time() - before_s


def _draw(kind: str, size_px: int, number: int) -> bytes:
    """Return a drawn face with noise, as large a file as a photograph's."""
    from PIL import Image

    from agetf_pipeline.synthetic.faces import draw_face, draw_identity

    face = draw_face(draw_identity(number), 20.0 + 8 * number, min(size_px, 256))
    large = np.asarray(Image.fromarray(face).resize((size_px, size_px)), np.int16)
    rng = np.random.default_rng(number)
    noise = rng.integers(-3, 4, large.shape) if kind == "PNG" else rng.integers(-9, 10, large.shape)
    stream = io.BytesIO()
    image = Image.fromarray((large + noise).clip(0, 255).astype(np.uint8))
    image.save(stream, kind, **({"compress_level": 4} if kind == "PNG" else {"quality": 90}))
    return stream.getvalue()


def _distinct(kind: str, data: bytes, number: int) -> bytes:
    """Return the same picture as another file: with its number in a text segment."""
    text = b"number %09d" % number
    if kind == "JPEG":
        return data[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + data[2:]
    body = b"tEXtComment\0" + text
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


def _measure_files(folder: Path, num_files: int) -> None:
    """Ingest many small files, twice, and print what it took."""
    pictures = [(kind, _draw(kind, 32, number)) for number in range(8) for kind in _SIZE_PX]
    for number in range(num_files):
        path = folder / "data" / "raw" / "ffhq_aging" / f"{number // 1000:05d}"
        if number % 1000 == 0:
            path.mkdir(parents=True)
        kind, data = pictures[number % len(pictures)]
        name = f"{path}/{number:08d}.{kind.lower()}"
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(descriptor, _distinct(kind, data, number))
        os.close(descriptor)
    print(f"{num_files} files of 32 px written", flush=True)
    for what in ("first run, all new", "second run, nothing new"):
        found = measured_apart("benchmarks.ingest", ["--stage", str(folder)])
        print(
            f"  {what:24} {found['wall_s']:8.1f} s, {num_files / found['wall_s']:8.0f} files/s, "
            f"processor {found['processor_s']:8.1f} s, peak "
            f"{found['peak_mib']:.0f} MiB, {found['status']}, {found['counts']}",
            flush=True,
        )


def _measure_shards(folder: Path, num_shards: int) -> None:
    """Ingest many shards of a few pictures each, and print what the last cost beside the first."""
    picture = _draw("PNG", 32, 0)
    names = [f"s{number:05d}" for number in range(num_shards)]
    for number, name in enumerate(names):
        shard = folder / "data" / "raw" / "caf" / name
        shard.mkdir(parents=True)
        lines = ["path,subject,age"]
        for place in range(8):
            (shard / f"{place}.png").write_bytes(_distinct("PNG", picture, number * 8 + place))
            lines.append(f"{place}.png,p{number},{20 + place}")
        (shard / "manifest.csv").write_text("\n".join(lines) + "\n")
    arguments = ["--stage", str(folder), *(f"caf/{name}" for name in names)]
    each_s = measured_apart("benchmarks.ingest", arguments)["each_s"]
    some = max(1, num_shards // 10)
    first, last = (float(np.median(part)) for part in (each_s[1 : some + 1], each_s[-some:]))
    print(
        f"  {num_shards} shards of 8: the first {some} take {first * 1000:.0f} ms each, the last "
        f"{some} {last * 1000:.0f} ms (medians): {last / first:.2f} times"
    )


def main() -> None:
    """Measure what the table does not: many files, or many shards."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-files", type=int)
    parser.add_argument("--num-shards", type=int)
    parser.add_argument("--folder", help="where to work; default: a temporary folder")
    parser.add_argument("--stage", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage is not None:
        _stage(Path(options.stage[0]), options.stage[1:] or ["ffhq_aging"])
        return
    for measure, number in ((_measure_files, options.num_files),
                            (_measure_shards, options.num_shards)):  # fmt: skip
        if number is not None:
            with tempfile.TemporaryDirectory(dir=options.folder) as name:
                measure(Path(name), number)


if __name__ == "__main__":
    main()
