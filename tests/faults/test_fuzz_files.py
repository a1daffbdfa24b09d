"""Mutated lists, weights, tables and archives: only the error that says so may come out."""

import io
import random
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from fuzz_mutations import disturb, mutate

from agetf_pipeline.config.ingest import ArchiveLimits
from agetf_pipeline.core.errors import DataError, WeightsError
from agetf_pipeline.data.archives import unpack
from agetf_pipeline.data.caf import match_manifest, read_manifest
from agetf_pipeline.data.ffhq_aging import LABEL_COLUMNS, read_labels
from agetf_pipeline.data.listing import Found, list_files
from agetf_pipeline.data.schemas import QUARANTINE
from agetf_pipeline.data.streaming import SortedTable
from agetf_pipeline.data.tables import conform, read_parquet, to_frame, write_parquet

MANIFEST = (
    'path,subject,age,group\na.jpg,ann,20,20-29\n"b,c.jpg",b\u00f6b,,\nd/e.jpg,,3.5,3-6\n'
    "../f.jpg,ann,200,x\n"
).encode()
LABELS = (
    ",".join(LABEL_COLUMNS)
    + "\n7,3-6,0.9,female,1,-1,0,0,0,0,None\n9,0-2,1,male,1,0,0,0,0,0,Dark\n"
).encode()


def outcomes(
    data: bytes, count: int, path: Path, read: Callable[[Path], object], expected: type[Exception]
) -> Counter[str]:
    """Read a file's mutations; nothing but `expected` may come out. Returns what happened."""
    rng = random.Random(len(data))
    seen: Counter[str] = Counter()
    for _ in range(count):
        path.write_bytes(mutate(data, [data], rng) if rng.random() < 0.5 else disturb(data, rng))
        try:
            read(path)
            seen["read"] += 1
        except expected:
            seen["refused"] += 1
    return seen


def test_manifests(tmp_path):
    files = [Found(tmp_path / name, name, 1) for name in ("a.jpg", "b,c.jpg", "d/e.jpg", "g.jpg")]

    def read(path: Path) -> None:
        rows = read_manifest(path.parent)
        listing = match_manifest(rows, files)
        # Whatever it says: every file is in one place, and nothing outside the shard is.
        assert {*listing.rows, *listing.unlisted} == {found.relative for found in files}
        for row in rows:
            assert row.true_age_years is None or 0 <= row.true_age_years <= 120

    seen = outcomes(MANIFEST, 2_500, tmp_path / "manifest.csv", read, DataError)
    assert min(seen.values()) > 150


def test_label_files(tmp_path):
    seen = outcomes(LABELS, 2_500, tmp_path / "labels.csv", read_labels, DataError)
    assert seen["refused"] > 2_000


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    import torch

    from agetf_pipeline.core.weights import save_tensors

    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    tensors = {"weight": torch.randn(3, 5), "bias": torch.zeros(3, dtype=torch.float16)}
    save_tensors(path, tensors, {"trained_on": "synthetic", "size_px": 32})
    return path


def test_safetensors(weights, tmp_path):
    from agetf_pipeline.core.weights import read_card, read_state

    def read(path: Path) -> None:
        read_card(path)
        assert all(isinstance(name, str) for name in read_state(path))

    seen = outcomes(weights.read_bytes(), 1_000, tmp_path / "a.safetensors", read, WeightsError)
    assert min(seen.values()) > 20


def test_pickled_checkpoints(tmp_path):
    import torch

    from agetf_pipeline.core.weights import read_state

    torch.save({"weight": torch.randn(3, 5)}, tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    seen = outcomes(data, 600, tmp_path / "b.pth", read_state, WeightsError)
    assert seen["refused"] > 50


def test_tables(tmp_path):
    row = {"path": "a", "partition": "caf/a", "image_id": "0" * 64, "reason": "empty",
           "detail": "no bytes", "num_bytes": 0, "duplicate_of": None}  # fmt: skip
    frame = to_frame([row | {"path": f"{n:03}"} for n in range(50)], QUARANTINE)
    write_parquet(tmp_path / "a.parquet", conform(frame, QUARANTINE))

    def read(path: Path) -> None:
        frame = read_parquet(path, QUARANTINE)
        assert frame.schema == to_frame([], QUARANTINE).schema
        streamed = list(SortedTable(path, QUARANTINE).slices(None))
        assert pl.concat(streamed).height == frame.height

    data = (tmp_path / "a.parquet").read_bytes()
    seen = outcomes(data, 1_500, tmp_path / "b.parquet", read, DataError)
    assert seen["refused"] > 500


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_archives(tmp_path, kind):
    stream = io.BytesIO()
    members = {"s/manifest.csv": MANIFEST, "s/a.jpg": bytes(range(256)) * 4, "s/d/e.jpg": b"e"}
    if kind == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz" if "gz" in kind else "w") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    outside = {path.name for path in tmp_path.iterdir()} | {f"s.{kind}", "locks", "caf"}
    limits = ArchiveLimits(max_bytes=10_000_000)
    number = 0

    def read(path: Path) -> None:
        nonlocal number
        number += 1
        report = unpack(path, tmp_path / "caf" / f"s{number}", limits, tmp_path / "locks")
        # What was taken can be listed and is plain files: no link, no device.
        listed = list_files(report.folder)
        assert all(found.reason is None for found in listed)
        assert len(listed) == report.num_files

    seen = outcomes(stream.getvalue(), 400, tmp_path / f"s.{kind}", read, DataError)
    assert seen["refused"] > 50
    assert {path.name for path in tmp_path.iterdir()} == outside
    assert len(list((tmp_path / "caf").iterdir())) == seen["read"]
