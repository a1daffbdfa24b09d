"""Fetching: resumed, verified, atomic, and honest where there is nothing to fetch from."""

import json

import pytest
from checkpoint_entries import DATA, SHA256, catalogue_of, file_entry, published
from checkpoint_server import Served, serving

from agetf_pipeline.checkpoints import hashes
from agetf_pipeline.checkpoints.catalogue import checkpoints_folder
from agetf_pipeline.checkpoints.checksums import read_record
from agetf_pipeline.checkpoints.downloading import Patience, download
from agetf_pipeline.checkpoints.fetching import fetch
from agetf_pipeline.core.errors import ConfigError, WeightsError

QUICK = Patience(timeout_s=5, num_tries=2, pause_s=0)


@pytest.fixture
def server():
    with serving(Served({"net.pth": DATA})) as served:
        yield served


def run(workspace, catalogue, name="net"):
    return list(fetch(name, workspace, catalogue, QUICK))


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_verified_and_put_on_record(workspace, server):
    catalogue = catalogue_of(published(url=server.url("net.pth"), size_bytes=len(DATA)))
    (fetched,) = run(workspace, catalogue)
    assert fetched.path.read_bytes() == DATA
    assert (fetched.sha256, fetched.already, fetched.vouched) == (SHA256, False, True)
    assert read_record(workspace)["net.pth"].how == "fetched"
    assert names_in(checkpoints_folder(workspace)) == ["checksums.json", "net.pth"]
    (again,) = run(workspace, catalogue)
    assert again.already
    assert len(server.requests) == 1


def test_an_interrupted_download_goes_on_where_it_stopped(workspace, server):
    server.breaks = [300_000, 200_000]
    catalogue = catalogue_of(published(url=server.url("net.pth")))
    (fetched,) = run(workspace, catalogue)
    assert fetched.path.read_bytes() == DATA
    asked = [request.get("Range") for request in server.requests]
    assert asked == [None, "bytes=300000-", "bytes=500000-"]
    assert server.requests[1]["If-Range"] == server.etag


def test_a_download_goes_on_in_another_run(workspace, server):
    catalogue = catalogue_of(published(url=server.url("net.pth")))
    server.breaks = [300_000, 0, 0]
    with pytest.raises(WeightsError, match="300000 of 1048576 bytes"):
        run(workspace, catalogue)
    folder = checkpoints_folder(workspace)
    assert names_in(folder) == ["net.pth.part", "net.pth.part.json"]
    (fetched,) = run(workspace, catalogue)
    assert server.requests[-1]["Range"] == "bytes=300000-"
    assert fetched.path.read_bytes() == DATA
    assert names_in(folder) == ["checksums.json", "net.pth"]


def test_a_finished_part_needs_no_second_transfer(tmp_path, server):
    part = tmp_path / "net.pth.part"
    download(server.url("net.pth"), part, None, QUICK)
    assert download(server.url("net.pth"), part, None, QUICK)  # 416: there is nothing after it
    assert part.read_bytes() == DATA
    assert len(server.requests) == 2


def test_a_server_without_ranges_starts_again(workspace, server):
    server.ranges = False
    server.breaks = [300_000]
    catalogue = catalogue_of(published(url=server.url("net.pth")))
    (fetched,) = run(workspace, catalogue)
    assert server.requests[1]["Range"] == "bytes=300000-"
    assert fetched.path.read_bytes() == DATA


def test_a_file_that_changed_on_the_server_is_not_sewn_together(workspace, server):
    catalogue = catalogue_of(published(url=server.url("net.pth")))
    server.files["net.pth"] = b"x" * len(DATA)
    server.breaks = [300_000, 0, 0]
    with pytest.raises(WeightsError):
        run(workspace, catalogue)
    server.files["net.pth"], server.etag = DATA, '"two"'
    (fetched,) = run(workspace, catalogue)
    assert fetched.path.read_bytes() == DATA


def test_without_an_etag_nothing_is_resumed(workspace, server):
    server.etag = ""
    server.breaks = [300_000]
    run(workspace, catalogue_of(published(url=server.url("net.pth"))))
    assert [request.get("Range") for request in server.requests] == [None, None]


def test_two_halves_that_do_not_fit_are_fetched_anew_once(workspace, server):
    catalogue = catalogue_of(published(url=server.url("net.pth")))
    folder = checkpoints_folder(workspace)
    folder.mkdir(parents=True)
    (folder / "net.pth.part").write_bytes(b"x" * 1000)
    notes = {"url": server.url("net.pth"), "validator": server.etag}
    (folder / "net.pth.part.json").write_text(json.dumps(notes))
    (fetched,) = run(workspace, catalogue)
    assert fetched.path.read_bytes() == DATA
    assert [request.get("Range") for request in server.requests] == ["bytes=1000-", None]


def test_a_corrupted_download_never_gets_the_name(workspace, server):
    server.files["net.pth"] = DATA[:-1] + b"!"
    with pytest.raises(WeightsError, match="thrown away"):
        run(workspace, catalogue_of(published(url=server.url("net.pth"))))
    assert names_in(checkpoints_folder(workspace)) == []
    assert read_record(workspace) == {}


def test_another_size_is_refused_before_the_transfer(workspace, server):
    catalogue = catalogue_of(published(url=server.url("net.pth"), size_bytes=7))
    with pytest.raises(WeightsError, match="announces 1048576"):
        run(workspace, catalogue)
    assert names_in(checkpoints_folder(workspace)) == []


@pytest.mark.parametrize(("status", "num_requests"), [(404, 1), (503, 2)])
def test_an_error_of_the_server_is_told_with_what_to_do(workspace, server, status, num_requests):
    server.status = status
    with pytest.raises(WeightsError, match=str(status)) as refused:
        run(workspace, catalogue_of(published(url=server.url("net.pth"))))
    assert "agetf models import" in str(refused.value)
    assert len(server.requests) == num_requests


def test_without_network_the_message_names_file_and_place(workspace, server):
    url = server.url("net.pth").replace(server.base, "http://127.0.0.1:9")
    catalogue = catalogue_of(published(url=url, size_bytes=len(DATA)))
    with pytest.raises(WeightsError) as refused:
        run(workspace, catalogue)
    message = str(refused.value)
    target = checkpoints_folder(workspace) / "net.pth"
    for part in (f"put net.pth at {target}", url, SHA256, str(len(DATA)), "agetf models import"):
        assert part in message


def test_a_file_without_url_is_asked_for_by_hand(workspace):
    with pytest.raises(WeightsError, match="by hand") as refused:
        run(workspace, catalogue_of(file_entry()))
    assert "https://example.org/net" in str(refused.value)
    assert f"put net.pth at {checkpoints_folder(workspace) / 'net.pth'}" in str(refused.value)


def test_an_index_names_further_files(workspace, server):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    server.files |= {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-1.safetensors": b"one",
        "model-2.safetensors": b"two",
    }
    path = "big/model.safetensors.index.json"
    entry = file_entry(path, url=server.url("model.safetensors.index.json"))
    catalogue = catalogue_of(entry, shard_index=path)
    fetched = run(workspace, catalogue)
    assert [file.path.name for file in fetched] == [
        "model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors",
    ]  # fmt: skip
    assert not any(file.vouched for file in fetched)
    assert set(read_record(workspace)) == {f"big/{file.path.name}" for file in fetched}


@pytest.mark.parametrize("shard", ["../../evil.safetensors", "code.py"])
def test_an_index_cannot_name_files_elsewhere(workspace, server, shard):
    server.files["index.json"] = json.dumps({"weight_map": {"a": shard}}).encode()
    entry = file_entry("big/index.json", url=server.url("index.json"))
    with pytest.raises(WeightsError, match="index of safetensors"):
        run(workspace, catalogue_of(entry, shard_index="big/index.json"))


def test_a_wrong_file_in_the_place_is_left_alone(workspace, server):
    target = checkpoints_folder(workspace) / "net.pth"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="remove it to fetch"):
        run(workspace, catalogue_of(published(url=server.url("net.pth"))))
    assert target.read_bytes() == b"something else"
    assert server.requests == []


def test_an_unknown_name_lists_those_there_are(workspace):
    with pytest.raises(ConfigError, match="There are: net"):
        run(workspace, catalogue_of(file_entry()), name="nett")


def test_what_was_just_hashed_is_not_hashed_again_to_load_it(workspace, server, monkeypatch):
    monkeypatch.setattr(hashes, "BIG_BYTES", 10)
    (fetched,) = run(workspace, catalogue_of(published(url=server.url("net.pth"))))
    assert hashes.known_hash(fetched.path, workspace) == SHA256
