from pathlib import Path

import numpy as np
import pytest
import torch

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import ConfigError, WeightsError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import load_weights, save_weights
from agetf_pipeline.experts.heads import MIN_SIGMA_YEARS
from agetf_pipeline.experts.mivolo import (
    CODE_VERSION,
    AgeRange,
    MiVOLO,
    MiVOLOExpert,
    build_volo,
    load_expert,
)
from agetf_pipeline.experts.preprocess import PROFILES, faces_to_tensor, normalise


def _faces(num: int, size_px: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, size_px, size_px, 3), np.uint8)


def _tiny(with_sigma: bool = True) -> MiVOLO:
    torch.manual_seed(0)
    return MiVOLO("tiny", 64, AgeRange(1.0, 95.0, 48.0), with_sigma=with_sigma).eval()


def test_full_size_has_the_layout_of_volo_d1():
    with torch.device("meta"):
        volo = build_volo("full", 224)
    depths = [len(stage) for stage in volo.network if isinstance(stage, torch.nn.Sequential)]
    assert depths == [4, 4, 8, 2]
    assert volo.patch_embed.proj.out_channels == 192
    assert volo.network[2][0].attn.num_heads == 12
    assert volo.pos_embed.shape == (1, 14, 14, 384)
    assert volo.head.weight.shape == (3, 384)
    assert len(volo.post_network) == 2


def test_age_is_the_scaled_third_output():
    module = _tiny()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        age, gender, sigma = module(x)
        out = module.volo(x)
    assert torch.allclose(age, out[:, 2] * 94 + 48, atol=1e-4)
    assert gender is not None
    assert torch.equal(gender, out[:, :2])
    assert sigma is not None
    assert (sigma > 0.5).all()


def test_sigma_head_does_not_change_the_trunk():
    module = _tiny()
    _, _, sigma = module(torch.randn(2, 3, 64, 64))
    assert sigma is not None
    sigma.sum().backward()
    assert all(p.grad is None for p in module.volo.parameters())
    assert module.sigma_head is not None
    assert module.sigma_head.fc2.weight.grad is not None


def test_age_range_and_sigma_head_travel_with_the_weights(tmp_path: Path):
    module = _tiny()
    save_weights(tmp_path / "w.safetensors", module, {})
    other = MiVOLO("tiny", 64)
    load_weights(other, tmp_path / "w.safetensors")
    assert other.age_range_years.tolist() == [1.0, 95.0, 48.0]
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(other.eval()(x)[0], module(x)[0])


@pytest.mark.parametrize("with_sigma", [True, False])
def test_expert_reads_finite_ages_of_any_square_size(with_sigma: bool):
    expert = MiVOLOExpert(_tiny(with_sigma), 64, "v", "synthetic")
    readings = expert.read(_faces(3, 100))
    assert readings.age_years.shape == (3,)
    assert np.isfinite(readings.age_years).all()
    assert ((readings.age_years >= 0) & (readings.age_years <= 100)).all()
    assert (readings.sigma_years > 0).all()
    assert readings.distribution is None
    assert readings.reasons == (None, None, None)


def test_batch_mates_do_not_change_a_reading():
    expert = MiVOLOExpert(_tiny(), 64, "v", "synthetic")
    faces = _faces(5)
    together = expert.read(faces)
    alone = [expert.read(faces[i : i + 1]).age_years[0] for i in range(5)]
    assert np.allclose(together.age_years, alone, atol=1e-3)


def test_non_finite_output_is_a_failed_reading():
    module = _tiny()
    with torch.no_grad():
        module.volo.head.bias[2] = float("nan")
    readings = MiVOLOExpert(module, 64, "v", "synthetic").read(_faces(2))
    assert np.isnan(readings.age_years).all()
    assert all(reason and "non-finite" in reason for reason in readings.reasons)


def test_input_size_must_fit_the_patches():
    with pytest.raises(WeightsError, match="multiple of 16"):
        build_volo("tiny", 70)


def _own(path: Path, **card: object) -> MiVOLO:
    module = _tiny()
    described = {"architecture": "mivolo", "size": "tiny", "input_px": 64, "trained_on": "drawn"}
    save_weights(path, module, described | card)
    return module


def test_our_weights_are_read_whole_and_resized_as_they_were_trained(tmp_path: Path):
    module = _own(tmp_path / "w.safetensors")
    settings = ExpertConfig(size="tiny", input_px=64)
    path = tmp_path / "w.safetensors"
    expert = load_expert("second", settings, path, torch.device("cpu"))
    assert expert.name == "second"
    assert expert.trained_on == "drawn"
    assert expert.version == f"{hash_file(path)[:12]}-{CODE_VERSION}"
    faces = _faces(2, 100)
    x_NCHW = normalise(faces_to_tensor(faces, torch.device("cpu"), 64), PROFILES["imagenet"])
    with torch.inference_mode():
        age, _, sigma = module(x_NCHW)
    readings = expert.read(faces)
    assert sigma is not None
    assert np.array_equal(readings.age_years, age.clamp(0, 100).numpy())
    assert np.array_equal(readings.sigma_years, sigma.numpy())


def test_our_weights_of_another_size_are_refused(tmp_path: Path):
    _own(tmp_path / "w.safetensors", input_px=32)
    settings = ExpertConfig(size="tiny", input_px=64)
    with pytest.raises(WeightsError, match="input_px"):
        load_expert("mivolo", settings, tmp_path / "w.safetensors", torch.device("cpu"))


def test_face_crop_outside_its_range_is_refused():
    with pytest.raises(ConfigError, match="face_crop"):
        MiVOLOExpert(_tiny(), 64, "v", "synthetic", face_crop=0.0)


def test_face_crop_is_cut_from_the_middle():
    expert = MiVOLOExpert(_tiny(False), 64, "v", "p", published=True, face_crop=0.64)
    faces = _faces(2, 100)
    inner = MiVOLOExpert(_tiny(False), 64, "v", "p", published=True).read(faces[:, 18:82, 18:82])
    assert np.array_equal(expert.read(faces).age_years, inner.age_years)


def test_other_views_give_the_spread_but_not_the_age():
    module = _tiny(False)
    expert = MiVOLOExpert(module, 64, "v", "p", published=True)
    x_NCHW = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        age, sigma = expert.ages_from(x_NCHW)
        assert torch.equal(age, module(x_NCHW)[0])
    assert (sigma >= MIN_SIGMA_YEARS).all()
