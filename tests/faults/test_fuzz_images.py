"""Mutated pictures of every format through the real decoding processes.

`pytest tests/faults/test_fuzz_images.py -s` prints what became of them, the rate and the memory.
"""

import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fuzz_mutations import mutate
from fuzz_seeds import accepted_seeds, encode, foreign_seeds, photo

from agetf_pipeline.config.ingest import ImageLimits
from agetf_pipeline.data.containers import Rejection, sniff
from agetf_pipeline.data.examine_pool import ExaminePool, Request
from agetf_pipeline.data.faces import FoundFace, crop_face, default_detector, find_and_crop
from agetf_pipeline.data.images import read_rgb
from agetf_pipeline.data.quarantine import REASONS

PER_SEED = 540
PER_FOREIGN_SEED = 200
BATCH = 2_000
MAX_DECODE_S = 20.0


def mutations() -> list[tuple[str, bytes]]:
    """Name of the seed and a mutated file, always the same ones, each once."""
    good, foreign = accepted_seeds(), foreign_seeds()
    others = [*good.values(), *foreign.values()]
    made: dict[bytes, str] = {}
    for seeds, count in ((good, PER_SEED), (foreign, PER_FOREIGN_SEED)):
        for name, data in seeds.items():
            for number in range(count):
                made.setdefault(mutate(data, others, random.Random(f"{name} {number}")), name)
    return [(name, data) for data, name in made.items() if data not in others]


def memory_mib(pool: ExaminePool, field: str) -> float:
    """The largest value of a field of /proc/PID/status over the pool's processes."""
    found = []
    for worker in pool._idle:
        status = Path(f"/proc/{worker._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(field))
        found.append(int(line.split()[1]) / 1024)
    return max(found)


def test_every_seed_is_what_it_says(tmp_path):
    """Or the mutations would start from files that are refused at the door."""
    seeds = accepted_seeds()
    for number, data in enumerate(seeds.values()):
        (tmp_path / f"{number}").write_bytes(data)
    with ExaminePool(ImageLimits(), 64, 1, MAX_DECODE_S) as pool:
        answers = pool.examine([Request(tmp_path / f"{n}") for n in range(len(seeds))])
    refused = {
        name: answer["reason"]
        for name, answer in zip(seeds, answers, strict=True)
        if answer["reason"]
    }
    assert refused == {
        "png apng": "animated",
        "webp animated": "animated",
        "webp see-through": "transparent",
    }
    assert {type(sniff(data)) for data in foreign_seeds().values()} == {Rejection}


@pytest.mark.slow
def test_no_mutated_picture_crashes_hangs_or_takes_more_than_its_memory(tmp_path):
    cases = mutations()
    assert len(cases) >= 20_000
    limits = ImageLimits()
    fates: Counter[tuple[str, str]] = Counter()
    busy_s = 0.0
    with ExaminePool(limits, 64, 2, MAX_DECODE_S) as pool:
        for start in range(0, len(cases), BATCH):
            batch = cases[start : start + BATCH]
            requests = [Request(tmp_path / f"{index:05}") for index in range(len(batch))]
            for request, (_, data) in zip(requests, batch, strict=True):
                request.path.write_bytes(data)
            before_s = time.monotonic()
            answers = pool.examine(requests)
            busy_s += time.monotonic() - before_s
            for request, (name, data), answer in zip(requests, batch, answers, strict=True):
                reason = answer["reason"]
                fates[name.split()[0], reason or "accepted"] += 1
                kept = f"{name}: {answer.get('detail')} ({data[:60].hex()}..., {len(data)} bytes)"
                assert reason is None or reason in REASONS, kept
                assert reason != "decoder_crash", kept
                if reason is None:
                    # What ingest takes, the stages can read, and see the same.
                    shape = answer["height_px"], answer["width_px"], 3
                    assert read_rgb(request.path, answer["sha256"]).shape == shape, kept
        resident_mib, address_mib = memory_mib(pool, "VmHWM"), memory_mib(pool, "VmPeak")
    assert address_mib < limits.memory_mib()
    report = [
        f"{len(cases)} mutated files, {len(cases) / busy_s:.0f} a second by two processes;",
        f"memory at most {resident_mib:.0f} MiB, address space {address_mib:.0f} MiB of "
        f"{limits.memory_mib()} MiB; processes that died or were stopped: 0",
        *(f"{kind:8} {fate:20} {count:6}" for (kind, fate), count in sorted(fates.items())),
    ]
    sys.stdout.write("\n" + "\n".join(report) + "\n")


def test_the_first_bytes_are_looked_at_without_a_library(monkeypatch):
    rng = random.Random(7)
    seeds = [*foreign_seeds().values(), encode(photo(), "GIF", save_all=True), b"GIF89a"]
    for number in range(6_000):
        found = sniff(mutate(seeds[number % len(seeds)], seeds, rng))
        assert isinstance(found, str) or found.reason in REASONS


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (32, 128), (37, 33), (900, 41)])
def test_no_size_of_picture_upsets_the_search_for_faces(size):
    rng = np.random.default_rng(sum(size))
    rgb = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    found = find_and_crop(rgb, 64, default_detector())
    assert found is None or found[0].shape == (64, 64, 3)
    for _ in range(60):
        left, top = rng.uniform(-2 * max(size), 3 * max(size), 2)
        side = float(rng.uniform(0.01, 4 * max(size)))
        eyes = tuple((float(x), float(y)) for x, y in rng.uniform(-50, 400, (2, 2)))
        for face in (FoundFace(left, top, side), FoundFace(left, top, side, eyes)):  # type: ignore[arg-type]
            assert crop_face(rgb, face, 64).shape == (64, 64, 3)
