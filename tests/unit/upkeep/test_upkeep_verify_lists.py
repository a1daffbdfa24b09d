"""What corpora say of their photographs, destroyed or contradicted: `agetf verify` names it."""

import random

import numpy as np
import polars as pl
import pytest
from PIL import Image
from verified_workspace import CAF, FFHQ, change, copied, make_config, report, tree

from agetf_pipeline.config.synthesize import SynthesizeConfig
from agetf_pipeline.core.files import write_json, write_text
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.quarantine import quarantine_frame, quarantine_row
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.data.shards import forget_shard
from agetf_pipeline.data.tables import read_table, table_path, to_frame
from agetf_pipeline.upkeep import verify_survey
from agetf_pipeline.upkeep.verify import verify_workspace

MANIFEST = "data/raw/caf/one/manifest.csv"
LABELS = "data/raw/ffhq_aging/ffhq_aging_labels.csv"
JUNK = random.Random(3).randbytes(2000)


@pytest.fixture
def workspace(tmp_path, tmp_path_factory) -> Workspace:
    return copied(tmp_path_factory, tmp_path / "w")


def found_in(workspace, **options) -> set[tuple[str, str, str]]:
    before = tree(workspace.root)
    result = verify_workspace(make_config(workspace.root), workspace, **options)
    assert tree(workspace.root) == before
    return {(f.severity, f.check, f.where) for f in result.findings}


def relist(workspace, *rows: str) -> None:
    text = "\n".join(["path,subject,age", *rows, "broken.png,,", "twin.png,,", ""])
    write_text(workspace.root / MANIFEST, text)


@pytest.mark.parametrize("name", [MANIFEST, LABELS])
def test_a_list_that_is_gone_or_junk_is_an_error(workspace, name):
    (workspace.root / name).write_bytes(JUNK)
    assert found_in(workspace) == {("error", "links/list_unreadable", name)}
    (workspace.root / name).unlink()
    assert found_in(workspace) == {("error", "links/list_missing", name)}


def test_images_without_labels_need_no_list(workspace):
    frame = read_table(workspace, IMAGES, [FFHQ])
    change(workspace, IMAGES, FFHQ, frame.with_columns(age_group=pl.lit(None, pl.String)))
    (workspace.root / LABELS).unlink()
    assert not found_in(workspace, areas=("links",))


def test_a_list_that_says_something_else_is_due_for_ingest(workspace):
    """Names of people stay out of what is printed."""
    relist(workspace, "00.png,ann secret,", "01.png,,30", "02.png,,", "03.png,,200")
    result = verify_workspace(make_config(workspace.root), workspace)
    assert {(f.severity, f.check, f.where) for f in result.findings} == {
        ("warning", "links/list_differs", MANIFEST)
    }
    assert sorted(f.found for f in result.findings) == [
        "another age", "another opinion of whether it can be used", "another subject",
    ]  # fmt: skip
    assert not any("secret" in f.expected + f.found for f in result.findings)
    labels = workspace.root / LABELS
    labels.write_text(labels.read_text().replace("3-6", "7-9"))
    assert ("warning", "links/list_differs", LABELS) in found_in(workspace)


def test_rows_that_came_or_went_are_due_for_ingest(workspace):
    relist(workspace, "00.png,,", "01.png,,", "02.png,,", "03.png,,", "later.png,bob,3")
    later = ("warning", "links/list_differs", "data/raw/caf/one/later.png")
    assert found_in(workspace) == {later}
    relist(workspace, "01.png,,", "02.png,,", "03.png,,")
    assert found_in(workspace) == {("warning", "links/list_differs", MANIFEST)}


def test_a_table_whose_people_and_ages_were_overwritten_is_an_error(workspace):
    said = pl.lit("x").alias("subject"), pl.lit(44.0, pl.Float32).alias("true_age_years")
    frame = read_table(workspace, IMAGES, [CAF]).with_columns(*said)
    change(workspace, IMAGES, CAF, frame)
    assert found_in(workspace) == {
        ("error", "links/list_contradicted", MANIFEST),
        ("warning", "files/output_changed", f"data/tables/images/{CAF}.parquet"),
    }


def test_the_files_of_a_drawn_corpus_are_hashed_lists_and_truth_too(workspace):
    clean = workspace.truth / "clean" / "caf" / "one" / "00.png"
    clean.parent.mkdir(parents=True)
    clean.write_bytes((workspace.raw_caf / "one" / "00.png").read_bytes())
    mark = workspace.truth / "corpus.json"
    write_json(mark, SynthesizeConfig().settings())
    outputs = {"caf/one": workspace.raw_caf / "one", "clean originals": workspace.truth / "clean"}
    report(workspace, "synthesize", outputs)
    assert not found_in(workspace)
    clean.write_bytes(JUNK)
    manifest = workspace.root / MANIFEST
    manifest.write_text(manifest.read_text() + "\n")
    changed = {
        ("warning", "files/output_changed", f"data/{name}")
        for name in ("raw/caf/one", "truth/clean")
    }
    assert found_in(workspace) == changed
    assert not found_in(workspace, quick=True)
    mark.write_bytes(JUNK)
    broken = {("error", "state/drawn_corpus", "data/truth/corpus.json")}
    assert found_in(workspace) == changed | broken
    mark.unlink()
    assert found_in(workspace, areas=("state",)) == broken


def test_a_key_of_another_length_is_found(workspace):
    key = workspace.state / "release" / "identities.key"
    key.parent.mkdir(parents=True)
    key.write_bytes(bytes(32))
    assert not found_in(workspace)
    key.write_bytes(JUNK)
    assert found_in(workspace) == {
        ("error", "state/release_key", "data/.state/release/identities.key")
    }


def test_a_shard_that_was_given_up_leaves_no_folder_and_no_error(workspace):
    (workspace.raw_caf / "one").rename(workspace.root / "away")
    (workspace.stats / "recheck" / "caf" / "one" / "empty").mkdir(parents=True)
    assert forget_shard(make_config(workspace.root), workspace, "one")
    found = found_in(workspace, areas=("links", "files"))
    # Image features lie together for all partitions: the stage caption removes those of nobody.
    assert {f for f in found if f[1] != "files/orphan"} == {
        ("warning", "links/gone_partition", "data/tables/training_manifest/all.parquet"),
        ("warning", "files/of_gone_partition", f"data/tables/labels/{CAF}.parquet"),
    }
    assert all("/token_grids/" in f[2] for f in found if f[1] == "files/orphan")


def test_duplicates_over_many_shards_open_each_table_once_for_all(tmp_path, monkeypatch):
    """Not by time: the reads of tables are counted."""
    workspace, num_shards = Workspace(tmp_path), 16
    picture = np.zeros((8, 8, 3), np.uint8)
    for number in range(num_shards):
        folder = workspace.raw_caf / f"s{number:02d}"
        folder.mkdir(parents=True)
        Image.fromarray(picture).save(folder / "a.png")
        write_text(folder / "manifest.csv", "path,subject,age\na.png,,\n")
        rows, refused = [], []
        path, digest = workspace.relative(folder / "a.png"), hash_file(folder / "a.png")
        if number == 0:
            kept = path
            row = dict.fromkeys(IMAGES.schema.names) | {"image_id": digest, "path": path}
            row |= {"face_path": path, "raw_name": "a.png", "format": "PNG", "mode": "RGB"}
            row |= dict.fromkeys(("stored_width_px", "stored_height_px"), 8)
            row |= {"width_px": 8, "height_px": 8, "num_bytes": (folder / "a.png").stat().st_size}
            rows = [row | {"partition": f"caf/{folder.name}", "is_grey": True, "flags": []}]
        else:
            refused = [
                quarantine_row(path, f"caf/{folder.name}", "duplicate", "x", digest, 1, kept)
            ]
        change(workspace, IMAGES, f"caf/{folder.name}", to_frame(rows, IMAGES))
        change(workspace, QUARANTINE, f"caf/{folder.name}", quarantine_frame(refused))
    opened = []
    real = verify_survey.SortedTable
    monkeypatch.setattr(
        verify_survey, "SortedTable", lambda path, spec: (opened.append(path), real(path, spec))[1]
    )
    assert not {f for f in found_in(workspace, areas=("links",)) if f[0] != "note"}
    tables = [table_path(workspace, IMAGES, f"caf/s{n:02d}") for n in range(num_shards)]
    each = [opened.count(table) for table in tables]
    assert max(each) <= 8, "a table was opened for every shard"
    (workspace.raw_caf / "s00" / "a.png").unlink()
    change(workspace, IMAGES, "caf/s00", to_frame([], IMAGES))
    lost = {("error", "links/duplicate_of", kept)}
    assert lost <= found_in(workspace, areas=("links",))
