"""Every visible file of a folder is listed, by a name that is a key."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.listing import escape_name, has_files, is_utf8, list_files


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_escaped_names_are_ascii_and_never_collide(first, second):
    one, two = escape_name(os.fsdecode(first)), escape_name(os.fsdecode(second))
    assert one.isascii()
    assert one.isprintable()
    assert (one == two) == (first == second)


def test_names_that_are_not_utf8_are_told_apart():
    assert is_utf8("é.png")
    assert not is_utf8(os.fsdecode(b"\xe9.png"))


def test_hidden_files_and_the_lists_are_left_out_and_all_else_is_there(tmp_path):
    for name in ("b/2.png", "a.png", "notes.txt", ".DS_Store", ".cache/1.png", "b/labels.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12")
    (tmp_path / "labels.csv").write_bytes(b"")
    found = list_files(tmp_path, ("labels.csv",))
    assert [item.relative for item in found] == ["a.png", "b/2.png", "b/labels.csv", "notes.txt"]
    assert {item.num_bytes for item in found} == {2}


def test_links_may_be_followed_where_that_is_asked_for(tmp_path):
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "1.png").write_bytes(b"1")
    (outside / "deep" / "back").symlink_to(outside, target_is_directory=True)
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "album").symlink_to(outside, target_is_directory=True)
    (folder / "same").symlink_to(outside, target_is_directory=True)
    closed = list_files(folder)
    assert [item.reason for item in closed] == ["outside_folder", "outside_folder"]
    found = {item.relative: item.reason for item in list_files(folder, follow_links=True)}
    assert found == {
        "album/deep/1.png": None,
        "album/deep/back": "linked_folder",
        "same": "linked_folder",
    }


def test_whether_a_folder_holds_images_at_all(tmp_path):
    assert not has_files(tmp_path / "absent")
    (tmp_path / "labels.csv").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"")
    assert not has_files(tmp_path, ("labels.csv",))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "labels.csv").write_bytes(b"")
    assert has_files(tmp_path, ("labels.csv",))


@pytest.mark.parametrize("name", ["gone"])
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, name):
    with pytest.raises(DataError, match="Expected to list"):
        list_files(tmp_path / name)
