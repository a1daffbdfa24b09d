import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.experts.base import Readings
from agetf_pipeline.experts.classifier import ClassifierExpert
from agetf_pipeline.experts.kinds import kind_of, trainer_of
from agetf_pipeline.experts.mivolo import MiVOLOExpert
from agetf_pipeline.experts.precision import AutocastExpert, age_shift_years, in_precision

CPU = torch.device("cpu")


class _Linear:
    """Reads an age as a matrix product of pixels, so that bfloat16 rounds it."""

    version, trained_on, name = "v1", "synthetic", "linear"

    def __init__(self, gain: float) -> None:
        self.module = nn.Linear(3, 1)
        nn.init.constant_(self.module.weight, gain)
        nn.init.constant_(self.module.bias, 0.0)

    @torch.inference_mode()
    def read(self, faces_NHWC: np.ndarray) -> Readings:
        mean_N3 = torch.from_numpy(faces_NHWC.mean(axis=(1, 2))).float()
        age_N = self.module(mean_N3)[:, 0].float().numpy()
        return Readings(age_N, np.ones_like(age_N), None, None, (None,) * len(age_N))


def test_a_file_of_the_package_is_a_kind_and_a_config_entry_may_have_another_name(monkeypatch):
    module = types.ModuleType("agetf_pipeline.experts.constant")
    module.load_expert = lambda name, expert, path, device: (name, expert.size)  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace(name=module.__name__)  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, module.__name__, module)

    expert = ExpertConfig(kind="constant", size="tiny")

    assert kind_of("anything", expert).load_expert("anything", expert, None, CPU) == (  # type: ignore[arg-type]
        "anything",
        "tiny",
    )
    with pytest.raises(ConfigError, match="not trained here"):
        trainer_of("anything", expert)


@pytest.mark.parametrize("kind", ["nothing", "heads", "base"])
def test_an_unknown_kind_names_the_known_ones(kind):
    with pytest.raises(ConfigError, match=r"janus.*mivolo.*resnet50.*vgg16"):
        kind_of("mine", ExpertConfig(kind=kind))


def test_a_kind_is_no_path_out_of_the_package():
    with pytest.raises(ValueError, match="pattern"):
        ExpertConfig(kind="..core.files")


def test_bf16_is_taken_where_ages_stay_and_refused_where_they_move(monkeypatch, caplog):
    monkeypatch.setattr("agetf_pipeline.experts.precision.computes_bf16", lambda device: True)
    settings = ExpertConfig(kind="linear", precision="bf16")
    steady, shaky = _Linear(0.002), _Linear(0.2)
    assert 0 < age_shift_years(steady, AutocastExpert(steady, CPU)) < 0.25
    assert age_shift_years(shaky, AutocastExpert(shaky, CPU)) > 0.25

    taken, refused = in_precision(steady, settings, CPU), in_precision(shaky, settings, CPU)

    assert taken.version == "v1-bf16"
    assert refused is shaky
    assert "fp32" in caplog.text


def test_bf16_is_not_tried_where_the_device_only_emulates_it(monkeypatch):
    monkeypatch.setattr("agetf_pipeline.experts.precision.computes_bf16", lambda device: False)
    expert = _Linear(0.002)
    assert in_precision(expert, ExpertConfig(kind="linear", precision="bf16"), CPU) is expert


def test_an_expert_that_fails_in_bf16_is_not_taken():
    class _Failing(_Linear):
        def read(self, faces_NHWC: np.ndarray) -> Readings:
            values = np.full(len(faces_NHWC), np.nan, np.float32)
            return Readings(values, values, None, None, ("broken",) * len(values))

    assert age_shift_years(_Linear(0.1), _Failing(0.1)) == float("inf")


@pytest.mark.parametrize("name", ["mivolo", "resnet50", "vgg16"])
def test_our_networks_read_under_autocast(name):
    module = trainer_of(name, ExpertConfig(size="tiny", input_px=64)).build(
        ExpertConfig(size="tiny", input_px=64), 40.0
    )
    if name == "mivolo":
        expert = MiVOLOExpert(module, 64, "v1", "synthetic")
    else:
        expert = ClassifierExpert(name, module, 64, "imagenet", "v1", "synthetic")
    faces = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    plain, faster = expert.read(faces), AutocastExpert(expert, CPU).read(faces)
    assert faster.age_years.dtype == faster.sigma_years.dtype == np.float32
    assert np.isfinite(faster.sigma_years).all()
    assert np.abs(plain.age_years - faster.age_years).max() < 5
