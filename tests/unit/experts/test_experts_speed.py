"""What makes reading fast changes no reading: shared pixels, compiled networks, exact parts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.compiling import FOLDER
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.experts.classifier import ClassifierExpert
from agetf_pipeline.experts.load import load_experts
from agetf_pipeline.experts.mivolo import MiVOLO
from agetf_pipeline.experts.precision import AutocastExpert
from agetf_pipeline.experts.preprocess import (
    PROFILES,
    faces_to_tensor,
    normalise,
    shared_faces,
)
from agetf_pipeline.experts.resnet50 import build_resnet50

CPU = torch.device("cpu")
FACES = np.random.default_rng(0).integers(0, 256, (6, 48, 48, 3), np.uint8)


def test_networks_of_one_input_size_share_the_pixels_of_the_same_faces():
    alone = faces_to_tensor(FACES, CPU, 32)
    with shared_faces():
        first = faces_to_tensor(FACES[:4], CPU, 32)
        assert faces_to_tensor(FACES[:4], CPU, 32) is first
        assert torch.equal(first, alone[:4])
        # Another part, another size: made anew, and no more than one is kept.
        assert torch.equal(faces_to_tensor(FACES[2:6], CPU, 32), alone[2:])
        assert faces_to_tensor(FACES[:4], CPU, 64).shape[2] == 64
        assert faces_to_tensor(FACES[:4], CPU, 32) is not first
    assert faces_to_tensor(FACES, CPU, 32) is not faces_to_tensor(FACES, CPU, 32)


@pytest.mark.parametrize("name", PROFILES)
def test_normalising_leaves_shared_pixels_as_they_are(name):
    pixels = faces_to_tensor(FACES, CPU, 48)
    before, profile = pixels.clone(), PROFILES[name]
    found = normalise(pixels, profile)
    assert torch.equal(pixels, before)
    x = before.flip(1) if profile.bgr else before
    mean, std = (torch.tensor(values)[:, None, None] for values in (profile.mean, profile.std))
    assert torch.equal(found, (x * profile.scale - mean) / std)


def test_sensitive_parts_of_mivolo_compute_in_fp32_within_autocast():
    torch.manual_seed(0)
    module = MiVOLO("tiny", 64).eval()
    dtypes = {}

    def note(name: str):
        def keep(_module: torch.nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
            dtypes[name] = output.dtype

        return keep

    volo = module.volo
    assert volo.post_network is not None
    parts = {
        "projection": volo.patch_embed.proj,
        "class attention": volo.post_network[-1],
        "head": volo.head,
        "perceptron": volo.get_submodule("network.0.0.mlp.fc1"),
    }
    for name, part in parts.items():
        part.register_forward_hook(note(name))
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        module(x)
    assert dtypes.pop("perceptron") == torch.bfloat16
    assert set(dtypes.values()) == {torch.float32}
    # Without autocast it is timm's own way through, to the last bit.
    with torch.inference_mode():
        expected = volo.forward_head(volo.forward_features(x))[:, 2] * 100 + 40
        assert torch.equal(module(x)[0], expected)


def test_networks_are_compiled_where_the_config_says_so(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")  # put back afterwards
    asked = []
    monkeypatch.setattr(torch, "compile", lambda module, **how: asked.append(how) or module)
    workspace = Workspace(tmp_path)
    card = {"input_px": 32, "size": "tiny", "profile": "imagenet", "trained_on": "synthetic"}
    modules = {"mivolo": MiVOLO("tiny", 32), "resnet50": build_resnet50("tiny")}
    for name, module in modules.items():
        path = workspace.models / "experts" / name / "weights.safetensors"
        save_weights(path, module, {"architecture": name, **card})

    def load(compiles: bool):
        experts = {name: {"size": "tiny", "input_px": 32} for name in modules}
        values = {
            "runtime": {"device": "cpu", "compile": compiles},
            "train_experts": {"experts": experts},
        }
        return load_experts(PipelineConfig.model_validate(values), workspace)

    plain, compiled = load(False), load(True)
    assert [one.version for one in compiled] == [
        plain[0].version, f"{plain[1].version}-compiled",
    ]  # fmt: skip
    assert len(asked) == 1
    assert asked[0]["dynamic"] is False
    assert (workspace.state / FOLDER).is_dir()
    for one, other in zip(plain, compiled, strict=True):
        assert np.array_equal(one.read(FACES).age_years, other.read(FACES).age_years)


def test_weights_that_are_kept_in_bf16_read_the_same_ages():
    torch.manual_seed(0)
    module = build_resnet50("tiny").eval().to(memory_format=torch.channels_last)
    expert = ClassifierExpert("resnet50", module, 32, "imagenet", "v", "synthetic")
    faster = AutocastExpert(expert, CPU)
    before = faster.read(FACES)
    expert.keep_bf16_weights()
    assert module.fc.weight.dtype == torch.bfloat16
    after = faster.read(FACES)
    assert np.array_equal(before.age_years, after.age_years)
    assert before.distribution is not None
    assert after.distribution is not None
    assert np.array_equal(before.distribution, after.distribution)
