"""Published MiVOLO weights, of random numbers: files of version 1, the folder of version 2."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.experts.mivolo import (
    CODE_VERSION,
    MiVOLO,
    load_expert,
    read_published,
    read_published_folder,
)

CPU = torch.device("cpu")
AGES = {"min_age": 1, "max_age": 95, "avg_age": 48.0}


def _trunk_state(with_body: bool = False, num_outputs: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    module = MiVOLO("tiny", 64, None, num_outputs, with_sigma=False, with_body=with_body)
    return module.volo.state_dict()


def _checkpoint(path: Path, state: dict[str, torch.Tensor] | None = None, **more: Any) -> Path:
    state = _trunk_state() if state is None else state
    state = {f"fds.{i}": torch.zeros(1) for i in range(2)} | state
    torch.save({"state_dict": state, **AGES, **more}, path)
    return path


def _folder(folder: Path, state: dict[str, torch.Tensor] | None = None, **more: Any) -> Path:
    state = _trunk_state(with_body=True) if state is None else state
    named = {f"mivolo.model.{name}": tensor.contiguous() for name, tensor in state.items()}
    save_file(named, folder / "model.safetensors")
    config = {"model_type": "mivolo", "model_name": "mivolo_d1_64", "input_size": 64,
              "in_chans": 6, "num_classes": 3, "only_age": False, "with_persons_model": True,
              "min_age": 0, "max_age": 122, "avg_age": 61.0}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | more))
    return folder


@pytest.mark.parametrize("with_body", [False, True])
@pytest.mark.parametrize("num_outputs", [1, 3])
def test_a_checkpoint_says_its_own_shape_and_ages(
    tmp_path: Path, with_body: bool, num_outputs: int
):
    state = _trunk_state(with_body, num_outputs)
    flags = {"no_gender": num_outputs == 1, "with_persons_model": with_body}
    module, input_px = read_published(_checkpoint(tmp_path / "m.pth.tar", state, **flags), "tiny")
    assert input_px == 64
    assert module.with_body == with_body
    assert module.age_range_years.tolist() == [1.0, 95.0, 48.0]
    assert module.sigma_head is None
    x_NCHW = torch.randn(2, 6 if with_body else 3, 64, 64)
    with torch.no_grad():
        age, gender, _ = module.eval()(x_NCHW)
        out = module.volo(x_NCHW)
    assert torch.allclose(age, out[:, -1] * 94 + 48)
    assert (gender is None) == (num_outputs == 1)
    for name, tensor in state.items():
        assert torch.equal(module.volo.state_dict()[name], tensor)


@pytest.mark.parametrize("with_body", [False, True])
def test_missing_and_left_over_tensors_are_refused(tmp_path: Path, with_body: bool):
    state = _trunk_state(with_body)
    path = _checkpoint(tmp_path / "more.pt", state | {"surprise": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"Unexpected: \['surprise'\]"):
        read_published(path, "tiny")
    absent = "patch_embed.map.qkv_f.weight" if with_body else "network.0.0.attn.v.weight"
    del state[absent]
    with pytest.raises(WeightsError, match=rf"Missing: \['{absent}'\]"):
        read_published(_checkpoint(tmp_path / "less.pt", state), "tiny")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path):
    torch.save(_trunk_state(), tmp_path / "bare.pt")
    with pytest.raises(WeightsError, match="min_age"):
        read_published(tmp_path / "bare.pt", "tiny")
    with pytest.raises(WeightsError, match="pos_embed"):
        read_published(_checkpoint(tmp_path / "empty.pt", {}), "tiny")
    thousand = _checkpoint(tmp_path / "thousand.pt", _trunk_state(num_outputs=1000))
    with pytest.raises(WeightsError, match="found 1000"):
        read_published(thousand, "tiny")


def test_flags_that_contradict_the_weights_are_refused(tmp_path: Path):
    with pytest.raises(WeightsError, match="only_age True but False"):
        read_published(_checkpoint(tmp_path / "a.pt", no_gender=True), "tiny")
    with pytest.raises(WeightsError, match="with_persons_model True but False"):
        read_published(_checkpoint(tmp_path / "b.pt", with_persons_model=True), "tiny")


def test_version_2_is_read_from_its_folder(tmp_path: Path):
    state = _trunk_state(with_body=True)
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    module, input_px = read_published_folder(_folder(tmp_path, halves), "tiny")
    assert input_px == 64
    assert module.with_body
    assert module.age_range_years.tolist() == [0.0, 122.0, 61.0]
    loaded = module.volo.state_dict()
    assert loaded.keys() == state.keys()
    # Stored in half precision, read in full.
    assert loaded["head.weight"].dtype == torch.float32
    assert all(torch.equal(loaded[k], v.to(loaded[k].dtype)) for k, v in halves.items())


def test_version_2_is_read_strictly(tmp_path: Path):
    state = _trunk_state(with_body=True)
    with pytest.raises(WeightsError, match="surprise"):
        read_published_folder(_folder(tmp_path, state | {"surprise": torch.zeros(1)}), "tiny")
    del state["aux_head.bias"]
    with pytest.raises(WeightsError, match=r"aux_head\.bias"):
        read_published_folder(_folder(tmp_path, state), "tiny")
    with pytest.raises(WeightsError, match="input_size 384 but 64"):
        read_published_folder(_folder(tmp_path, input_size=384), "tiny")


def test_an_incomplete_folder_says_what_it_lacks(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"config\.json"):
        read_published_folder(tmp_path, "tiny")
    (tmp_path / "config.json").write_text('{"min_age": 0}')
    with pytest.raises(WeightsError, match="max_age"):
        read_published_folder(tmp_path, "tiny")
    (tmp_path / "config.json").write_text(json.dumps(AGES))
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        read_published_folder(tmp_path, "tiny")


def test_the_loader_tells_files_from_folders(tmp_path: Path):
    settings = ExpertConfig(size="tiny")
    path = _checkpoint(tmp_path / "m.pth.tar")
    first = load_expert("mivolo", settings, path, CPU)
    assert first.version == f"{hash_file(path)[:12]}-{CODE_VERSION}"
    assert first.trained_on == "published"
    folder = tmp_path / "v2"
    folder.mkdir()
    second = load_expert("mivolo2", settings, _folder(folder), CPU)
    assert second.name == "mivolo2"
    assert second.version != first.version
    _folder(folder, avg_age=60.0)
    third = load_expert("mivolo2", settings, folder, CPU)
    assert third.version != second.version
