"""Ingest in slices over a store against ingest the plain way, on shards of every oddity."""

import io
import os
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from plain_ingest import read_plainly

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data import corpus_tables, examinations
from agetf_pipeline.data.examine_worker import examine
from agetf_pipeline.data.listing import escape_name
from agetf_pipeline.data.probe import Limits
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.data.tables import read_table
from agetf_pipeline.stages import ingest

NAMES = (
    b"a.png", b"b.png", b"c/d.png", b"c.png", b"c!.png", b"C:x.png", "\u00e9.png".encode(),
    "e\u0301.png".encode(), b"b\\c.png", b"bad\xff.png", b"\xff.png", b"x y.png", b"=cmd.png",
)  # fmt: skip
LISTED = (
    "gone.png", "../up.png", "/abs.png", "./a.png", "c\\d.png", "bad\\xff.png", "a.png",
    *(unicodedata.normalize(form, "\u00e9.png") for form in ("NFC", "NFD")),
)  # fmt: skip
SUBJECTS = ("", "ann", "Ann", "bob")
AGES = ("", "20", "20.0", "31", "140", "x")


def picture(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (33, 33, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


CONTENTS = (*(picture(seed) for seed in range(3)), b"", b"<html>", picture(0)[:300])
rows = st.tuples(
    st.sampled_from([*LISTED, *(n.decode() for n in NAMES if n.isascii())]),
    st.sampled_from(SUBJECTS),
    st.sampled_from(AGES),
)
shards = st.tuples(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(range(len(CONTENTS))), min_size=1),
    st.lists(rows, max_size=16),
)


class HerePool:
    """Examines in this process: starting others takes longer than all the rest."""

    def __init__(self, limits, *_settings) -> None:
        self._limits = limits

    def __enter__(self):
        return self

    def __exit__(self, *_error) -> None: ...

    def stream(self, requests):
        for request in requests:
            yield examine(Path(request.path), Limits(), request.crop_to, 64)


def write(folder: Path, files: dict[bytes, int], listed: list[tuple[str, str, str]]) -> None:
    for name, place in files.items():
        path = folder / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(CONTENTS[place])
    lines = [f'"{path}",{subject},{age}' for path, subject, age in listed]
    (folder / "manifest.csv").write_text("\n".join(["path,subject,age", *lines, ""]))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(shards, min_size=2, max_size=2), st.sampled_from((1, 2, 7)))
def test_the_same_becomes_of_every_file_as_the_plain_way(both, slice_rows):
    was = examinations.ExaminePool, corpus_tables._SLICE, examinations._SLICE
    examinations.ExaminePool = HerePool
    corpus_tables._SLICE = examinations._SLICE = slice_rows
    try:
        with tempfile.TemporaryDirectory() as name:
            compare(Workspace(Path(name)), both)
    finally:
        examinations.ExaminePool, corpus_tables._SLICE, examinations._SLICE = was


def compare(workspace: Workspace, both) -> None:
    config = PipelineConfig.model_validate(
        {"workspace": {"root": workspace.root}, "ingest": {"max_failed_fraction": 1.0}}
    )
    elsewhere = {}
    for shard, (files, listed) in zip(("one", "two"), both, strict=True):
        folder, partition = workspace.raw_caf / shard, f"caf/{shard}"
        folder.mkdir(parents=True)
        write(folder, files, listed)
    for shard in ("one", "two"):
        folder, partition = workspace.raw_caf / shard, f"caf/{shard}"
        plain = read_plainly(folder, f"data/raw/{partition}", elsewhere)
        report = ingest.run(config, workspace, partition)
        images = read_table(workspace, IMAGES, [partition])
        quarantine = read_table(workspace, QUARANTINE, [partition])
        assert images["image_id"].is_sorted()
        assert quarantine["path"].is_sorted()
        assert report.counts["inputs"] == images.height + quarantine.height
        found = {}
        for row in images.iter_rows(named=True):
            odd = "listed_by_other_name" in row["flags"]
            path = row["path"] if "name_not_utf8" in row["flags"] else escape_name(row["path"])
            said = row["subject"], row["true_age_years"], row["age_group"]
            found[path] = (row["image_id"], *said, odd)
            elsewhere[row["image_id"]] = (path, *said[:2])
        assert found == plain.images
        others = quarantine.select("path", "reason", "detail", "duplicate_of").iter_rows()
        assert {path: tuple(why) for path, *why in others} == plain.quarantine
