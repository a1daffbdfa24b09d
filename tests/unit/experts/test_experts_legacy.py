"""Recognising the research code's checkpoints, and refusing what is not quite one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50, vgg16

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.experts import resnet50 as resnet50_kind
from agetf_pipeline.experts import vgg16 as vgg16_kind
from agetf_pipeline.experts.legacy import (
    build_legacy_resnet50,
    build_legacy_vgg16,
    recognise_legacy,
)
from agetf_pipeline.experts.preprocess import PROFILES, normalise

CPU = torch.device("cpu")
_RESNET_BLOCKS = (3, 4, 6, 3)
_PARTS = {"1x1_reduce": "1", "3x3": "2", "1x1_increase": "3"}


def _zeros(shape: torch.Size) -> Tensor:
    return torch.zeros(()).expand(shape)  # no memory, and next to nothing in a file


def _vgg16_state() -> dict[str, Tensor]:
    ours = _torchvisions_vgg16()
    convolutions = iter(
        f"conv.{block}.conv{place}"
        for block, size in enumerate((2, 2, 3, 3, 3))
        for place in range(1, size + 1)
    )
    names: dict[str, str] = {}
    for key in ours:
        layer = key.rpartition(".")[0]
        if layer not in names:
            linear = {"classifier.0": "fc1.0", "classifier.3": "fc2.0", "classifier.6": "cls"}
            names[layer] = linear.get(layer) or next(convolutions)
    return {
        f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": _zeros(value.shape)
        for key, value in ours.items()
    }


def _torchvisions_vgg16() -> dict[str, Tensor]:
    with torch.device("meta"):
        return vgg16(num_classes=101, init_weights=False).state_dict()


def _resnet50_state() -> dict[str, Tensor]:
    with torch.device("meta"):
        ours = resnet50(num_classes=101).state_dict()
    names = {"conv1": "conv1_7x7_s2", "bn1": "conv1_7x7_s2_bn", "fc": "classage"}
    for stage, num_blocks in enumerate(_RESNET_BLOCKS, start=1):
        for block in range(num_blocks):
            here, there = f"layer{stage}.{block}", f"conv{stage + 1}_{block + 1}"
            for part, number in _PARTS.items():
                names[f"{here}.conv{number}"] = f"{there}_{part}"
                names[f"{here}.bn{number}"] = f"{there}_{part}_bn"
            names[f"{here}.downsample.0"] = f"{there}_1x1_proj"
            names[f"{here}.downsample.1"] = f"{there}_1x1_proj_bn"
    state = {}
    for key, value in ours.items():
        layer, _, tensor = key.rpartition(".")
        shape = torch.Size((101, 2048, 1, 1)) if key == "fc.weight" else value.shape
        state[f"{names[layer]}.{tensor}"] = _zeros(shape)
    return state


def test_every_key_of_vgg16_has_its_place_and_its_input():
    weights = recognise_legacy(_vgg16_state(), "a test")
    assert weights is not None
    expected = _torchvisions_vgg16()
    assert {key: value.shape for key, value in weights.state.items()} == {
        key: value.shape for key, value in expected.items()
    }
    assert (weights.kind, weights.profile) == ("vgg16", "legacy_vgg_bgr")


def test_every_key_of_resnet50_has_its_place_and_its_input():
    weights = recognise_legacy(_resnet50_state(), "a test")
    assert weights is not None
    with torch.device("meta"):
        expected = resnet50(num_classes=101).state_dict()
    assert {key: value.shape for key, value in weights.state.items()} == {
        key: value.shape for key, value in expected.items()
    }
    assert (weights.kind, weights.profile) == ("resnet50", "raw_bgr")


def test_resnet50_without_batch_counters_is_whole_and_with_half_of_them_is_not():
    state = _resnet50_state()
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    none = {key: value for key, value in state.items() if key not in counters}
    weights = recognise_legacy(none, "a test")
    assert weights is not None
    assert set(weights.state) == set(build_legacy_resnet50().state_dict())
    del state[counters[0]]
    weights = recognise_legacy(state, "a test")
    assert weights is not None
    assert set(weights.state) != set(build_legacy_resnet50().state_dict())


def test_strides_and_pooling_are_those_of_the_caffe_layout():
    module = build_legacy_resnet50()
    strides = [(stage[0].conv1.stride[0], stage[0].conv2.stride[0]) for stage in _stages(module)]
    assert strides == [(1, 1), (2, 1), (2, 1), (2, 1)]
    assert (module.maxpool.padding, module.maxpool.ceil_mode) == (0, True)
    assert module.maxpool(torch.zeros(1, 1, 112, 112)).shape == (1, 1, 56, 56)


def _stages(module) -> list:
    return [module.layer1, module.layer2, module.layer3, module.layer4]


@pytest.mark.parametrize("key", ["conv.5.conv1.weight", "conv.0.conv3.weight", "fc3.0.weight"])
def test_keys_without_a_place_are_listed(key: str):
    state = _vgg16_state() | {key: torch.zeros(1)}
    with pytest.raises(WeightsError, match=key.replace(".", r"\.")):
        recognise_legacy(state, "a test")


def test_other_weights_are_none_of_the_research_codes():
    assert recognise_legacy(build_legacy_resnet50().state_dict(), "a test") is None
    assert recognise_legacy({"conv.0.conv1.weight": torch.zeros(1)}, "a test") is None


def test_a_file_is_recognised_by_its_keys_and_settings_must_fit(tmp_path: Path):
    path = tmp_path / "model_best_loss"  # as the research code names it, without a suffix
    torch.save(_vgg16_state(), path)
    expert = vgg16_kind.load_expert("vgg16", ExpertConfig(), path, CPU)
    assert expert._profile == PROFILES["legacy_vgg_bgr"]
    assert type(expert.module) is type(build_legacy_vgg16())
    with pytest.raises(WeightsError, match=r"'vgg16', 'full', 224"):
        vgg16_kind.load_expert("vgg16", ExpertConfig(input_px=256), path, CPU)
    with pytest.raises(WeightsError, match="tiny"):
        vgg16_kind.load_expert("vgg16", ExpertConfig(size="tiny"), path, CPU)
    with pytest.raises(WeightsError, match="resnet50"):
        resnet50_kind.load_expert("resnet50", ExpertConfig(), path, CPU)


def test_missing_keys_are_listed(tmp_path: Path):
    state = _resnet50_state()
    del state["conv3_2_3x3.weight"]
    torch.save(state, tmp_path / "age_estimator.pth")
    with pytest.raises(WeightsError, match=r"layer2\.1\.conv2\.weight"):
        resnet50_kind.load_expert("resnet50", ExpertConfig(), tmp_path / "age_estimator.pth", CPU)


def test_vggs_input_is_bgr_to_255_less_imagenets_mean_by_position():
    x = torch.tensor([10.0, 20.0, 30.0])[None, :, None, None]  # red, green, blue
    found = normalise(x, PROFILES["legacy_vgg_bgr"])[0, :, 0, 0]
    expected = [(30 - 0.485) / 0.229, (20 - 0.456) / 0.224, (10 - 0.406) / 0.225]
    torch.testing.assert_close(found, torch.tensor(expected))
