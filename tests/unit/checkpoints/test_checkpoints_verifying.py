"""Nothing loads that fails verification, unless the user says so."""

import logging
import os

import pytest
import torch
import yaml
from checkpoint_entries import DATA, SHA256, catalogue_of, file_entry, published

from agetf_pipeline.checkpoints import hashes, require_verified
from agetf_pipeline.checkpoints.catalogue import Catalogue, checkpoints_folder
from agetf_pipeline.checkpoints.importing import import_path
from agetf_pipeline.checkpoints.verifying import judge
from agetf_pipeline.config.runtime import RuntimeConfig
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import save_weights


def runtime_of(tmp_path, catalogue=None, **values) -> RuntimeConfig:
    path = tmp_path / "models.yaml"
    if catalogue is not None:
        path.write_text(yaml.safe_dump(catalogue.model_dump(mode="json")))
    return RuntimeConfig(models_catalogue=path, **values)


def put(workspace, name="net.pth", data=DATA):
    path = checkpoints_folder(workspace) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def own_weights(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, torch.nn.Linear(2, 2), {"trained_on": "synthetic"})
    return path


def test_a_published_file_passes_and_a_damaged_one_does_not(tmp_path, workspace):
    runtime = runtime_of(tmp_path, catalogue_of(published()))
    path = put(workspace)
    assert require_verified(path, workspace, runtime) == SHA256
    path.write_bytes(DATA[:-1])
    with pytest.raises(WeightsError, match="to be the published net") as refused:
        require_verified(path, workspace, runtime)
    message = str(refused.value)
    for part in (SHA256, "agetf models fetch net", "agetf models import", "allow_unverified"):
        assert part in message


def test_a_published_file_passes_wherever_it_lies_and_whatever_its_name(tmp_path, workspace):
    runtime = runtime_of(tmp_path, catalogue_of(published()))
    other = tmp_path / "other.bin"
    other.write_bytes(DATA)
    assert require_verified(other, workspace, runtime) == SHA256


def test_a_prefix_of_the_hash_is_enough_and_binding(tmp_path, workspace):
    entry = file_entry(sha256_prefix=SHA256[:8], hash_source="the file's name")
    runtime = runtime_of(tmp_path, catalogue_of(entry))
    path = put(workspace)
    assert require_verified(path, workspace, runtime) == SHA256
    path.write_bytes(b"other")
    with pytest.raises(WeightsError, match=f"{SHA256[:8]}"):
        require_verified(path, workspace, runtime)


def test_an_unknown_file_is_refused_until_it_is_imported(tmp_path, workspace):
    catalogue = catalogue_of(published())
    runtime = runtime_of(tmp_path, catalogue)
    path = put(workspace, "mine.pth", b"mine")
    with pytest.raises(WeightsError, match="--name NAME") as refused:
        require_verified(path, workspace, runtime)
    assert "runtime.allow_unverified_weights=true" in str(refused.value)
    import_path(path, workspace, catalogue, name="mine")
    digest = require_verified(path, workspace, runtime)
    elsewhere = tmp_path / "copy.pth"
    elsewhere.write_bytes(b"mine")  # the same content is as good at another place
    assert require_verified(elsewhere, workspace, runtime) == digest
    path.write_bytes(b"changed")
    with pytest.raises(WeightsError, match="changed since"):
        require_verified(path, workspace, runtime)


def test_the_user_can_allow_it_and_is_warned(tmp_path, workspace, caplog):
    runtime = runtime_of(tmp_path, catalogue_of(published()), allow_unverified_weights=True)
    path = put(workspace, data=b"damaged")
    with caplog.at_level(logging.WARNING):
        assert require_verified(path, workspace, runtime) != SHA256
    assert "to be the published net" in caplog.text
    with pytest.raises(WeightsError, match="found nothing"):
        require_verified(path.with_name("gone.pth"), workspace, runtime)


def test_it_works_without_a_catalogue(tmp_path, workspace):
    runtime = runtime_of(tmp_path)
    path = put(workspace)
    with pytest.raises(WeightsError, match="something vouches"):
        require_verified(path, workspace, runtime)
    import_path(path, workspace, Catalogue(checkpoints={}), name="mine")
    assert require_verified(path, workspace, runtime) == SHA256


def test_own_weights_pass_unless_the_record_knows_other_bytes(tmp_path, workspace):
    runtime = runtime_of(tmp_path, catalogue_of(published()))
    path = own_weights(tmp_path / "own.safetensors")
    assert require_verified(path, workspace, runtime) is None  # not even hashed
    kept = own_weights(checkpoints_folder(workspace) / "own.safetensors")
    import_path(kept, workspace, catalogue_of(published()), name="own")
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    with pytest.raises(WeightsError, match="changed since"):
        require_verified(kept, workspace, runtime)


def test_safetensors_without_a_card_are_not_own(tmp_path, workspace):
    path = tmp_path / "foreign.safetensors"
    save_weights(path, torch.nn.Linear(2, 2), {})
    with pytest.raises(WeightsError, match="carries no card"):
        require_verified(path, workspace, runtime_of(tmp_path, catalogue_of(published())))


def test_every_file_of_a_foreign_folder_counts(tmp_path, workspace):
    entries = [published("big/model.safetensors"), file_entry("big/config.json")]
    runtime = runtime_of(tmp_path, catalogue := catalogue_of(*entries))
    put(workspace, "big/model.safetensors")
    config = put(workspace, "big/config.json", b"{}")
    folder = config.parent
    with pytest.raises(WeightsError, match=r"config\.json"):
        require_verified(folder, workspace, runtime)
    import_path(folder, workspace, catalogue)
    assert require_verified(folder, workspace, runtime) is None
    config.write_bytes(b"{'a': 1}")
    with pytest.raises(WeightsError, match=r"config\.json.*changed since"):
        require_verified(folder, workspace, runtime)


def test_a_folder_made_here_passes(tmp_path, workspace):
    runtime = runtime_of(tmp_path, catalogue_of(published()))
    folder = own_weights(workspace.models / "experts" / "janus" / "weights.safetensors").parent
    (folder / "config.json").write_text("{}")
    assert require_verified(folder, workspace, runtime) is None
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(WeightsError, match="transformers' format"):
        require_verified(empty, workspace, runtime)


def test_a_big_file_is_hashed_once_and_again_when_it_changes(tmp_path, workspace, monkeypatch):
    monkeypatch.setattr(hashes, "BIG_BYTES", 10)
    runtime = runtime_of(tmp_path, catalogue := catalogue_of(published()))
    path = put(workspace)
    assert judge(path, workspace, catalogue, hashes.known_hash).status == "unchecked"
    hashed = []
    monkeypatch.setattr(
        hashes, "_hash_with_progress", lambda path, _: hashed.append(path) or SHA256
    )
    for _ in range(3):
        assert require_verified(path, workspace, runtime) == SHA256
    assert len(hashed) == 1
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    require_verified(path, workspace, runtime)
    assert len(hashed) == 2
    # Other bytes with the size and time of the old ones: the change time gives them away.
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    require_verified(path, workspace, runtime)
    assert len(hashed) == 3


def test_a_damaged_record_is_not_an_empty_one(tmp_path, workspace):
    path = put(workspace)
    put(workspace, "checksums.json", b'{"net.pth": {"sha256": "short"}}')
    with pytest.raises(WeightsError, match="record of accepted checksums"):
        require_verified(path, workspace, runtime_of(tmp_path))
