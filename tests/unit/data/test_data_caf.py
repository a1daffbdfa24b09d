"""CAF manifests: what is read, and how they are laid over the files."""

import os
from pathlib import Path

import pytest

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.caf import ManifestRow, match_manifest, read_manifest
from agetf_pipeline.data.listing import Found


def manifest(folder: Path, *rows: str, header: str = "path,subject,age") -> Path:
    (folder / "manifest.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return folder


def row(listed: str, subject: str | None = "ann", age: float | None = 30) -> ManifestRow:
    return ManifestRow(listed, subject, age, None)


def files(*names: str) -> list[Found]:
    return [Found(Path(name), name, 1) for name in names]


def test_empty_fields_are_not_known_and_bad_ages_are_kept_as_text(tmp_path):
    rows = read_manifest(manifest(tmp_path, "a.jpg,ann,44", "b.jpg,,", "c.jpg,c,130", "d.jpg,d,x"))
    assert [(r.subject, r.true_age_years, r.bad_age) for r in rows] == [
        ("ann", 44.0, None),
        (None, None, None),
        ("c", None, "130"),
        ("d", None, "x"),
    ]


@pytest.mark.parametrize("age", ["-1", "nan", "inf", "121"])
def test_ages_outside_human_life_are_bad(tmp_path, age):
    assert read_manifest(manifest(tmp_path, f"a.jpg,ann,{age}"))[0].bad_age == age


def test_groups_are_taken_where_they_are_those_of_ffhq_aging(tmp_path):
    header = "path,subject,age,group"
    rows = read_manifest(manifest(tmp_path, "a,s,4,3-6", "b,s,4,4-8", "c,s,4,", header=header))
    assert [r.age_group for r in rows] == ["3-6", None, None]
    with pytest.raises(DataError, match="a date"):
        read_manifest(manifest(tmp_path, "a,s,4,3-Jun", header=header))


def test_a_shard_without_manifest_fails_loudly(tmp_path):
    with pytest.raises(DataError, match="path,subject,age"):
        read_manifest(tmp_path)
    with pytest.raises(DataError, match="missing subject"):
        read_manifest(manifest(tmp_path, "a,3", header="path,age"))
    with pytest.raises(DataError, match="Expected a path in line 2"):
        read_manifest(manifest(tmp_path, ",ann,3"))


@pytest.mark.parametrize(
    "listed", ["../a.png", "/etc/passwd", "x/../../a.png", "..\\a.png", "C:\\a"]
)
def test_no_row_leads_out_of_the_shard(listed):
    listing = match_manifest([row(listed)], files("a.png"))
    assert [reason for _, reason, _ in listing.rejected] == ["outside_folder"]
    assert listing.unlisted == ["a.png"]


def test_every_row_and_every_file_is_accounted_for():
    listing = match_manifest([row("a.png"), row("gone.png")], files("a.png", "new.png"))
    assert set(listing.rows) == {"a.png"}
    assert [(name, reason) for name, reason, _ in listing.rejected] == [
        ("gone.png", "missing_file")
    ]
    assert listing.unlisted == ["new.png"]


def test_another_spelling_finds_a_file_only_where_none_has_the_name_itself():
    composed, apart = "caf\u00e9.png", "cafe\u0301.png"
    listing = match_manifest([row(composed)], files(apart))
    assert listing.rows[apart].listed == composed
    assert listing.by_other_name == {apart}
    both = match_manifest([row(apart, "two"), row(composed, "one")], files(apart, composed))
    assert both.rows[composed].subject == "one"
    assert both.rows[apart].subject == "two"
    assert not both.by_other_name
    raw = os.fsdecode(b"caf\xe9.png")
    assert match_manifest([row("caf\\xe9.png")], files(raw)).by_other_name == {raw}
    assert match_manifest([row("x\\1.png")], files("x/1.png")).by_other_name == {"x/1.png"}


def test_repeated_rows_count_once_and_contradictions_count_not_at_all():
    same = match_manifest([row("a.png"), row("a.png")], files("a.png"))
    assert not same.conflicting
    assert same.messages
    differ = match_manifest([row("a.png"), row("a.png", "bob")], files("a.png"))
    assert "bob" in differ.conflicting["a.png"]
