"""Importing: what a person brought is recognised, verified, copied whole, and put on record."""

import hashlib

import pytest
from checkpoint_entries import DATA, SHA256, catalogue_of, file_entry, published

from agetf_pipeline.checkpoints.catalogue import Catalogue, checkpoints_folder
from agetf_pipeline.checkpoints.checksums import read_record
from agetf_pipeline.checkpoints.importing import import_path
from agetf_pipeline.checkpoints.verifying import judge
from agetf_pipeline.core.errors import WeightsError


def brought(tmp_path, name="net.pth", data=DATA):
    path = tmp_path / "downloads" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["net.pth", "net (1).pth", "alias.pth"])
def test_a_published_file_is_recognised_by_content_or_name(tmp_path, workspace, name):
    catalogue = catalogue_of(published(also_named=["alias.pth"]))
    (done,) = import_path(brought(tmp_path, name), workspace, catalogue)
    assert done.path == checkpoints_folder(workspace) / "net.pth"
    assert (done.checkpoint, done.vouched) == ("net", "published")
    assert done.path.read_bytes() == DATA
    assert read_record(workspace)["net.pth"].sha256 == SHA256


def test_a_file_without_published_hash_is_taken_on_the_persons_word(tmp_path, workspace):
    catalogue = catalogue_of(file_entry())
    (done,) = import_path(brought(tmp_path), workspace, catalogue)
    assert done.vouched == "person"
    assert judge(done.path, workspace, catalogue).status == "accepted"
    size = catalogue_of(file_entry(size_bytes=7))
    with pytest.raises(WeightsError, match="7 bytes"):
        import_path(brought(tmp_path), workspace, size)


def test_a_mismatch_is_refused_unless_it_is_accepted(tmp_path, workspace):
    catalogue = catalogue_of(published())
    other = brought(tmp_path, data=b"other")
    with pytest.raises(WeightsError, match="--accept-mismatch"):
        import_path(other, workspace, catalogue)
    assert not checkpoints_folder(workspace).exists()
    (done,) = import_path(other, workspace, catalogue, accept_mismatch=True)
    assert done.vouched == "mismatch"
    assert read_record(workspace)["net.pth"].mismatch_accepted
    assert judge(done.path, workspace, catalogue).status == "accepted"
    done.path.write_bytes(b"a third")
    assert judge(done.path, workspace, catalogue).status == "mismatch"


def test_accepting_a_file_under_one_name_does_not_accept_it_under_another(tmp_path, workspace):
    catalogue = catalogue_of(published())
    import_path(brought(tmp_path, "mine.pth", b"mine"), workspace, catalogue, name="mine")
    wrong = checkpoints_folder(workspace) / "net.pth"
    wrong.write_bytes(b"mine")
    assert judge(wrong, workspace, catalogue).status == "mismatch"


def test_an_unknown_file_needs_a_name(tmp_path, workspace):
    catalogue = catalogue_of(published())
    mine = brought(tmp_path, "mine.pth", b"mine")
    with pytest.raises(WeightsError, match="--name NAME"):
        import_path(mine, workspace, catalogue)
    (done,) = import_path(mine, workspace, catalogue, name="my-net")
    assert done.path == checkpoints_folder(workspace) / "mine.pth"
    with pytest.raises(WeightsError, match="--name of letters"):
        import_path(mine, workspace, catalogue, name="../up")
    with pytest.raises(WeightsError, match="name of the record"):
        import_path(brought(tmp_path, "checksums.json"), workspace, catalogue_of(file_entry()), "x")


def test_a_known_file_cannot_be_passed_off_as_another(tmp_path, workspace):
    with pytest.raises(WeightsError, match="its sha256 is that of net"):
        import_path(brought(tmp_path), workspace, catalogue_of(published()), name="mine")


def test_a_renamed_file_of_a_single_file_checkpoint_is_placed_by_its_name(tmp_path, workspace):
    catalogue = catalogue_of(file_entry())
    source = brought(tmp_path, "download.bin", b"x")
    (done,) = import_path(source, workspace, catalogue, name="net")
    assert done.path.name == "net.pth"


def test_a_name_that_several_have_is_asked_about(tmp_path, workspace):
    one, two = (
        catalogue_of(file_entry(f"{name}/config.json"), name=name).checkpoints[name]
        for name in ("one", "two")
    )
    both = Catalogue(checkpoints={"one": one, "two": two})
    source = brought(tmp_path, "config.json", b"{}")
    with pytest.raises(WeightsError, match="any of one, two"):
        import_path(source, workspace, both)
    (done,) = import_path(source, workspace, both, name="two")
    assert done.path == checkpoints_folder(workspace) / "two" / "config.json"


@pytest.mark.parametrize("folder", ["net", "Downloaded-Net"])
def test_a_checkpoint_folder_is_recognised_and_taken_whole(tmp_path, workspace, folder):
    entries = [published("net/model.safetensors"), file_entry("net/config.json")]
    source = brought(tmp_path, f"{folder}/model.safetensors").parent
    (source / "config.json").write_text("{}")
    (source / "extra.txt").write_text("a vocabulary")
    (source / "model.bin").write_bytes(b"a pickle")
    done = import_path(source, workspace, catalogue_of(*entries))
    target = checkpoints_folder(workspace) / "net"
    assert sorted(path.name for path in target.iterdir()) == [
        "config.json", "extra.txt", "model.safetensors",
    ]  # fmt: skip
    assert {file.path.name: file.vouched for file in done} == {
        "config.json": "person", "extra.txt": "person", "model.safetensors": "published",
    }  # fmt: skip
    assert len(read_record(workspace)) == 3


def test_an_unknown_folder_needs_a_name_and_one_bad_file_stops_all(tmp_path, workspace):
    catalogue = catalogue_of(published("net/model.safetensors"), file_entry("net/config.json"))
    source = brought(tmp_path, "other/model.safetensors", b"other").parent
    (source / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="--name NAME"):
        import_path(source, workspace, catalogue)
    with pytest.raises(WeightsError, match="damaged"):
        import_path(source, workspace, catalogue, name="net")
    assert not checkpoints_folder(workspace).exists()
    done = import_path(source, workspace, catalogue, name="mine")
    assert {file.path.parent.name for file in done} == {"mine"}


def test_a_folder_of_single_files_takes_those_that_are_known(tmp_path, workspace):
    source = brought(tmp_path).parent
    (source / "holiday.jpg").write_bytes(b"x")
    (done,) = import_path(source, workspace, catalogue_of(published()))
    assert done.path.name == "net.pth"
    (source / "net.pth").unlink()
    with pytest.raises(WeightsError, match="none by name"):
        import_path(source, workspace, catalogue_of(published()))


def test_a_file_in_its_place_is_only_put_on_record(tmp_path, workspace):
    path = checkpoints_folder(workspace) / "net.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    before = path.stat()
    import_path(path, workspace, catalogue_of(file_entry()))
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert read_record(workspace)["net.pth"].how == "imported"


def test_a_source_that_changes_meanwhile_is_noticed(tmp_path, workspace, monkeypatch):
    from agetf_pipeline.checkpoints import importing

    stale = hashlib.sha256(b"before").hexdigest()
    monkeypatch.setattr(importing, "cached_hash", lambda *_: stale)
    with pytest.raises(WeightsError, match="it changed"):
        import_path(brought(tmp_path), workspace, catalogue_of(file_entry()))
    assert list(checkpoints_folder(workspace).iterdir()) == []


def test_nothing_there_says_so(tmp_path, workspace):
    with pytest.raises(WeightsError, match="found nothing there"):
        import_path(tmp_path / "absent", workspace, catalogue_of(file_entry()))


def test_equal_files_of_two_checkpoints_are_kept_apart(tmp_path, workspace):
    one = catalogue_of(published("one/config.json"), name="one").checkpoints["one"]
    two = catalogue_of(file_entry("two/config.json"), name="two").checkpoints["two"]
    both = Catalogue(checkpoints={"one": one, "two": two})
    (done,) = import_path(brought(tmp_path, "two/config.json"), workspace, both)
    assert (done.checkpoint, done.path.parent.name) == ("two", "two")
    (done,) = import_path(brought(tmp_path, "config.json"), workspace, both, name="two")
    assert done.checkpoint == "two"
