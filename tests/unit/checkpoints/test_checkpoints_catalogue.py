"""The catalogue: what it refuses, and that configs/models.yaml and the configs agree."""

from pathlib import Path

import pytest
import yaml
from checkpoint_entries import SHA256, catalogue_of, file_entry, published
from pydantic import ValidationError

from agetf_pipeline.checkpoints.catalogue import (
    checkpoints_folder,
    find_catalogue,
    load_catalogue,
)
from agetf_pipeline.config import PipelineConfig, load_config, workspace_of
from agetf_pipeline.config.base import Section
from agetf_pipeline.config.runtime import RuntimeConfig
from agetf_pipeline.core.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
CATALOGUE = load_catalogue(CONFIGS / "models.yaml")


def test_the_default_is_the_catalogue_of_the_repository():
    assert find_catalogue(RuntimeConfig()) == CATALOGUE
    config = load_config(CONFIGS / "base.yaml", ["runtime.models_catalogue=configs/models.yaml"])
    assert find_catalogue(config.runtime) == CATALOGUE


@pytest.mark.parametrize("name", CATALOGUE.checkpoints)
def test_every_entry_says_where_from_under_which_licence_and_for_what(name):
    entry = CATALOGUE.checkpoints[name]
    assert entry.title
    assert entry.source.startswith("https://")
    assert entry.licence.name
    assert entry.download_mb is not None or name == "adaface-ir50"  # its size was found nowhere
    for key in entry.used_by:
        assert is_config_key(key), key
    for file in entry.files:
        assert file.url is not None or entry.by_hand
        assert file.hash_source or not file.has_hash
        # torchvision's names carry the beginning of the hash.
        digits = Path(file.path).stem.rpartition("-")[2]
        if file.sha256_prefix is not None:
            assert file.sha256_prefix == digits


def test_hashes_are_not_repeated():
    hashes = [file.sha256 for _, file in CATALOGUE.files() if file.sha256 is not None]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize("name", ["base.yaml", "large.yaml"])
def test_every_weights_path_of_the_configs_is_listed(name):
    config = load_config(CONFIGS / name)
    folder = checkpoints_folder(workspace_of(config))
    listed = {file.path: key for key, file in CATALOGUE.files()}
    listed |= {entry.folder: key for key, entry in CATALOGUE.checkpoints.items() if entry.folder}
    paths = {
        f"train_experts.experts.{expert}.weights": settings.weights
        for expert, settings in config.train_experts.experts.items()
    }
    enhancers = config.train_enhancers
    paths["train_enhancers.ddcolor.weights"] = enhancers.ddcolor.weights
    paths["train_enhancers.esrgan.weights"] = enhancers.esrgan.weights
    named = {key: path for key, path in paths.items() if path is not None}
    assert len(named) == 4
    for key, path in named.items():
        checkpoint = listed[path.relative_to(folder).as_posix()]
        assert key in CATALOGUE.checkpoints[checkpoint].used_by


def is_config_key(key: str) -> bool:
    """Whether a dotted key exists; the names of experts stand for themselves."""
    model = PipelineConfig
    parts = key.split(".")
    for number, part in enumerate(parts):
        if not (isinstance(model, type) and issubclass(model, Section)):
            return False
        if part not in model.model_fields:
            return False
        annotation = model.model_fields[part].annotation
        if getattr(annotation, "__origin__", None) is dict:
            experts = load_config(CONFIGS / "base.yaml").train_experts.experts
            rest = parts[number + 2 :]
            return parts[number + 1] in experts and rest[0] in type(experts["janus"]).model_fields
        model = annotation
    return True


def test_unknown_keys_are_refused_and_named(tmp_path):
    values = yaml.safe_load((CONFIGS / "models.yaml").read_text())
    values["checkpoints"]["yunet"]["sha265"] = "0"
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"checkpoints\.yunet\.sha265"):
        load_catalogue(path)
    path.write_text("checkpoints: [")
    with pytest.raises(ConfigError, match="YAML"):
        load_catalogue(path)
    with pytest.raises(ConfigError, match="found nothing"):
        load_catalogue(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (file_entry("../net.pth"), "plain relative path"),
        (file_entry("/net.pth"), "plain relative path"),
        (file_entry("checksums.json"), "plain relative path"),
        (file_entry(".hidden"), "plain relative path"),
        (file_entry(sha256=SHA256), "where it was read"),
        (published(sha256_prefix="01234567"), "does not begin"),
        (published(sha256="ABC"), "pattern"),
        (file_entry(url="http://example.org/net.pth"), "https"),
        (file_entry(url="file:///etc/passwd"), "https"),
        (file_entry(size_bytes=0), "greater than 0"),
    ],
)
def test_entries_that_would_do_harm_are_refused(file, problem):
    with pytest.raises(ValidationError, match=problem):
        catalogue_of(file)


def test_a_file_without_url_needs_directions():
    with pytest.raises(ValidationError, match="by_hand"):
        catalogue_of(file_entry(), by_hand=None)
    with pytest.raises(ValidationError, match="listed twice"):
        catalogue_of(file_entry(), file_entry())
    with pytest.raises(ValidationError, match="one of the files"):
        catalogue_of(file_entry(), shard_index="else.json")
