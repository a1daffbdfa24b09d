from pathlib import Path

import numpy as np
import pytest
import torch

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import ConfigError, WeightsError
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.experts.load import load_experts, weights_hash, weights_path
from agetf_pipeline.experts.mivolo import MiVOLO
from agetf_pipeline.experts.resnet50 import build_resnet50
from agetf_pipeline.experts.vgg16 import build_vgg16


def _config(trusting: bool = False, **experts) -> PipelineConfig:
    values = {
        name: {"size": "tiny", "input_px": 32} | settings for name, settings in experts.items()
    }
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu", "allow_unverified_weights": trusting},
            "train_experts": {"experts": values},
        }
    )


def _card(name: str, **changes) -> dict:
    card = {"architecture": name, "size": "tiny", "input_px": 32, "profile": "imagenet"}
    return card | {"trained_on": "synthetic"} | changes


def _save_all(workspace: Workspace) -> None:
    modules = {
        "mivolo": MiVOLO("tiny", 32),
        "resnet50": build_resnet50("tiny"),
        "vgg16": build_vgg16("tiny"),
    }
    for name, module in modules.items():
        path = workspace.models / "experts" / name / "weights.safetensors"
        save_weights(path, module, _card(name))


def test_only_the_configured_experts_are_loaded(tmp_path: Path):
    workspace = Workspace(tmp_path)
    _save_all(workspace)
    experts = load_experts(_config(vgg16={}, mivolo={}), workspace)
    assert [expert.name for expert in experts] == ["mivolo", "vgg16"]
    assert all(expert.trained_on == "synthetic" for expert in experts)
    config = _config(vgg16={})
    version = load_experts(config, workspace)[0].version
    assert version.split("-")[0] == weights_hash(config, workspace, "vgg16")[:12]


@pytest.mark.parametrize("name", ["janus", "mivolo", "resnet50", "vgg16"])
def test_absent_weights_say_what_to_do(name: str, tmp_path: Path):
    with pytest.raises(WeightsError, match="agetf train_experts"):
        load_experts(_config(**{name: {}}), Workspace(tmp_path))
    with pytest.raises(WeightsError, match=r"correct train_experts\.experts"):
        load_experts(_config(**{name: {"weights": "gone.safetensors"}}), Workspace(tmp_path))


def test_no_expert_at_all_is_a_config_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="found none"):
        load_experts(_config(), Workspace(tmp_path))


def test_weights_of_other_settings_are_refused(tmp_path: Path):
    workspace = Workspace(tmp_path)
    _save_all(workspace)
    with pytest.raises(WeightsError, match="card"):
        load_experts(_config(resnet50={"input_px": 64}), workspace)


def test_configured_weights_are_taken_from_the_root(tmp_path: Path):
    config = _config(True, vgg16={"weights": "mine/v.pth"})
    path = weights_path(config, Workspace(tmp_path), "vgg16")
    assert path == tmp_path / "mine" / "v.pth"
    path.parent.mkdir()
    torch.save(build_vgg16("tiny").state_dict(), path)
    (expert,) = load_experts(config, Workspace(tmp_path))
    assert expert.trained_on == "published"


def test_a_published_mivolo_is_read_through_the_config(tmp_path: Path):
    module = MiVOLO("tiny", 32)
    checkpoint = {
        "state_dict": module.volo.state_dict(), "min_age": 1, "max_age": 95, "avg_age": 48.0,
    }  # fmt: skip
    torch.save(checkpoint, tmp_path / "m.pth.tar")
    (expert,) = load_experts(_config(True, mivolo={"weights": "m.pth.tar"}), Workspace(tmp_path))
    assert expert.name == "mivolo"
    assert expert.trained_on == "published"


def test_foreign_weights_must_fit(tmp_path: Path):
    torch.save({"surprise": torch.zeros(1)}, tmp_path / "v.pth")
    with pytest.raises(WeightsError, match="surprise"):
        load_experts(_config(True, vgg16={"weights": "v.pth"}), Workspace(tmp_path))


def test_foreign_weights_load_only_once_somebody_vouches_for_them(tmp_path: Path):
    workspace = Workspace(tmp_path)
    path = workspace.models / "checkpoints" / "v.pth"
    path.parent.mkdir(parents=True)
    torch.save(build_vgg16("tiny").state_dict(), path)
    config = _config(vgg16={"weights": "models/checkpoints/v.pth"})
    with pytest.raises(WeightsError, match="agetf models import"):
        load_experts(config, workspace)
    trusting = _config(True, vgg16={"weights": "models/checkpoints/v.pth"})
    assert load_experts(trusting, workspace)[0].trained_on == "published"


def test_the_config_says_how_much_of_a_face_published_mivolo_weights_see(tmp_path: Path):
    module = MiVOLO("tiny", 32)
    torch.save(
        {"state_dict": module.volo.state_dict(), "min_age": 1, "max_age": 95, "avg_age": 48.0},
        tmp_path / "m.pth.tar",
    )
    faces = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    ages = {}
    for crop in (None, 0.8, 1.0):
        settings = {"weights": "m.pth.tar", "face_crop": crop}
        (expert,) = load_experts(_config(True, mivolo=settings), Workspace(tmp_path))
        ages[crop] = expert.read(faces).age_years
    assert (ages[None] == ages[0.8]).all()
    assert (ages[1.0] != ages[0.8]).all()
