"""Identical pictures with different statements, through ingest; and spellings of one person."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.caf import subject_of
from agetf_pipeline.data.claims import Claim, conflict_between
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.data.splits import identity_of, split_of
from agetf_pipeline.data.tables import read_table
from agetf_pipeline.stages import ingest


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "w")


def shard(workspace: Workspace, name: str, *rows: str) -> Path:
    """A shard whose files are named `<picture>-...png`; equal pictures are equal bytes."""
    folder = workspace.raw_caf / name
    folder.mkdir(parents=True)
    text = "\n".join(["path,subject,age", *rows, ""])
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    for row in rows:
        path = folder / row.split(",")[0]
        values = np.random.default_rng(ord(path.name[0])).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(values).save(path)
    return folder


def read(workspace: Workspace, partition: str) -> tuple[dict[str, str], list[str]]:
    """Each file's fate, `ok` or why not, and the messages."""
    settings = {"max_failed_fraction": 1.0, "num_workers": 1}
    config = PipelineConfig.model_validate(
        {"workspace": {"root": workspace.root}, "ingest": settings}
    )
    report = ingest.run(config, workspace, partition)
    images = read_table(workspace, IMAGES, [partition])["path"].to_list()
    rows = read_table(workspace, QUARANTINE, [partition]).iter_rows(named=True)
    fates = dict.fromkeys(images, "ok") | {row["path"]: row["reason"] for row in rows}
    return {path.split("/")[-1]: fate for path, fate in sorted(fates.items())}, report.messages


def test_identical_files_of_two_people_or_ages_are_both_turned_away(workspace):
    shard(
        workspace, "one",
        "a-1.png,ann,20", "a-2.png,bob,20", "a-3.png,,",
        "b-1.png,ann,20", "b-2.png,ann,30",
        "c-1.png,ann,20", "c-2.png,Ann,20", "c-3.png,ann,", "c-4.png,,20",
    )  # fmt: skip
    fates, _ = read(workspace, "caf/one")
    assert fates == {
        "a-1.png": "conflicting_rows", "a-2.png": "conflicting_rows", "a-3.png": "ok",
        "b-1.png": "conflicting_rows", "b-2.png": "conflicting_rows",
        "c-1.png": "ok", "c-2.png": "duplicate", "c-3.png": "duplicate", "c-4.png": "duplicate",
    }  # fmt: skip
    rows = read_table(workspace, QUARANTINE, ["caf/one"]).iter_rows(named=True)
    details = {row["path"].split("/")[-1]: row["detail"] for row in rows}
    assert "caf/one/a-2.png, which is listed with another subject" in details["a-1.png"]
    assert "caf/one/b-1.png, which is listed with another age" in details["b-2.png"]
    assert not any("ann" in detail or "bob" in detail for detail in details.values())


def test_a_later_shard_does_not_get_the_picture_of_another_person(workspace):
    shard(workspace, "one", "a.png,ann,20.3", "b.png,ann,40", "c.png,ann,50")
    shard(workspace, "two", "a.png,ann,20.3", "b.png,eve,40", "c.png,ann,51")
    assert set(read(workspace, "caf/one")[0].values()) == {"ok"}
    fates, messages = read(workspace, "caf/two")
    assert fates == {
        "a.png": "duplicate",
        "b.png": "conflicting_rows",
        "c.png": "conflicting_rows",
    }
    assert any("an earlier shard has too, with another subject or age: 2" in m for m in messages)
    row = read_table(workspace, QUARANTINE, ["caf/two"]).filter(reason="conflicting_rows")
    assert row["duplicate_of"].to_list() == ["data/raw/caf/one/b.png", "data/raw/caf/one/c.png"]


def test_of_identical_files_of_a_shard_the_one_is_kept_that_says_most(workspace):
    shard(
        workspace, "one",
        "a-1.png,,", "a-2.png,,20", "a-3.png,p1,20", "a-4.png,p1,20",
        "b-1.png,,30", "b-2.png,p2,",
    )  # fmt: skip
    fates, messages = read(workspace, "caf/one")
    assert {name for name, fate in fates.items() if fate == "ok"} == {"a-3.png", "b-2.png"}
    assert set(fates.values()) == {"ok", "duplicate"}
    images = read_table(workspace, IMAGES, ["caf/one"]).sort("path")
    assert images["subject"].to_list() == ["p1", "p2"]
    assert images["true_age_years"].to_list() == [20.0, None]
    refused = read_table(workspace, QUARANTINE, ["caf/one"])
    assert set(refused["duplicate_of"]) == {f"data/raw/caf/one/{n}.png" for n in ("a-3", "b-2")}
    assert any("a person or an age" in m and "none: 1." in m for m in messages)


def test_what_a_later_shard_alone_says_of_a_picture_is_said_to_be_unused(workspace):
    shard(workspace, "one", "u.png,,", "v.png,ann,30")
    shard(workspace, "two", "u.png,p0,20", "v.png,,")
    assert not any("not used" in message for message in read(workspace, "caf/one")[1])
    fates, messages = read(workspace, "caf/two")
    assert fates == {"u.png": "duplicate", "v.png": "duplicate"}
    assert any("where the picture that was kept has none: 1. What" in m for m in messages)
    rows = read_table(workspace, QUARANTINE, ["caf/two"]).sort("path")
    assert "it is not used" in rows["detail"][0]
    assert "p0" not in rows["detail"][0]
    assert "not used" not in rows["detail"][1]


def test_correcting_the_first_list_lets_the_second_shard_in_as_duplicates(workspace):
    first = shard(workspace, "one", "a.png,ann,20")
    shard(workspace, "two", "a.png,eve,20")
    read(workspace, "caf/one")
    assert read(workspace, "caf/two")[0] == {"a.png": "conflicting_rows"}
    (first / "manifest.csv").write_text("path,subject,age\na.png,eve,20\n")
    read(workspace, "caf/one")
    assert read(workspace, "caf/two")[0] == {"a.png": "duplicate"}


def test_a_hundred_thousand_copies_cost_no_square_of_their_number(workspace):
    """Not by time: the comparisons are counted."""
    from agetf_pipeline.data import claims

    folder = shard(workspace, "one", "a-0.png,s0,20")
    rows = ["a-0.png,s0,20"]
    for number in range(1, 400):
        shutil.copyfile(folder / "a-0.png", folder / f"a-{number}.png")
        rows.append(f"a-{number}.png,s{number % 2},20")
    (folder / "manifest.csv").write_text("\n".join(["path,subject,age", *rows, ""]))
    real, calls = claims.conflict_between, []
    claims.conflict_between = lambda one, other: calls.append(1) or real(one, other)
    try:
        fates, _ = read(workspace, "caf/one")
    finally:
        claims.conflict_between = real
    assert set(fates.values()) == {"conflicting_rows"}
    assert len(calls) <= 2 * 400


def test_what_two_statements_disagree_on():
    one = Claim("a", "ann", 20.0)
    assert conflict_between(one, Claim("b", None, None)) is None
    assert conflict_between(one, Claim("b", "ANN", 20.0000001)) is None
    assert conflict_between(one, Claim("b", "bob", 21.0)) == "another subject and another age"


def test_spellings_that_nobody_can_see_apart_are_one_person():
    assert subject_of("Jos\u00e9  Mar\u00eda ") == subject_of("Jose\u0301\u00a0Mari\u0301a")
    assert subject_of("\u200fann\u200b") == "ann"
    assert subject_of(" \u200e ") is None
    # Joiners tell words apart in some scripts.
    assert (
        subject_of("\u0646\u0627\u0645\u200c\u0647\u0627") == "\u0646\u0627\u0645\u200c\u0647\u0627"
    )


def test_capitals_make_other_people_and_never_another_split(workspace):
    fractions = {"train": 0.5, "test": 0.5}
    names = [f"Stra\u00dfe{n}" for n in range(60)]
    splits = [split_of(identity_of("caf/a", "x", name), fractions, 3) for name in names]
    assert set(splits) == set(fractions)
    upper = [split_of(identity_of("caf/b", "y", name.upper()), fractions, 3) for name in names]
    assert upper == splits
    shard(workspace, "one", "a.png,ann,20", "b.png,Ann,30")
    fates, messages = read(workspace, "caf/one")
    assert set(fates.values()) == {"ok"}
    subjects = read_table(workspace, IMAGES, ["caf/one"])["subject"]
    assert sorted(subjects.to_list()) == ["Ann", "ann"]
    assert any("differ from another one in capitals alone: 1" in m for m in messages)
