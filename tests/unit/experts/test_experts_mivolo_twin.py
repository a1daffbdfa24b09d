"""MiVOLO with a body beside the face: what stands for a missing one, and keeping its embedding."""

import copy

import numpy as np
import pytest
import torch

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.experts.mivolo import AgeRange, MiVOLO, MiVOLOExpert
from agetf_pipeline.experts.mivolo_twin import TwinPatchEmbed, missing_bodies


def _twin(num_outputs: int = 3) -> MiVOLO:
    torch.manual_seed(0)
    module = MiVOLO("tiny", 64, AgeRange(1, 95, 48), num_outputs, with_sigma=False, with_body=True)
    with torch.no_grad():
        module.volo.head.weight.normal_(std=0.03)  # pyright: ignore[reportCallIssue]
    return module.eval()


def _embed(module: MiVOLO) -> TwinPatchEmbed:
    embed = module.volo.patch_embed
    assert isinstance(embed, TwinPatchEmbed)
    return embed


def _pictures(count: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)


def _with_black_bodies(x_NCHW: torch.Tensor) -> torch.Tensor:
    return torch.cat([x_NCHW, missing_bodies(x_NCHW)], dim=1)


def test_the_full_size_has_the_published_shapes():
    with torch.device("meta"):
        state = MiVOLO("full", 384, with_body=True).volo.state_dict()
    assert state["patch_embed.conv1.0.weight"].shape == (64, 3, 7, 7)
    assert state["patch_embed.proj2.weight"].shape == (192, 64, 4, 4)
    assert state["patch_embed.map.qkv_p.weight"].shape == (576, 192, 1, 1)
    assert state["patch_embed.map.pos_embed.height_rel"].shape == (95, 192)
    assert state["patch_embed.map.norm.weight"].shape == (384, 48, 48)
    assert state["patch_embed.map.mlp.fc2.weight"].shape == (192, 768, 1, 1)


def test_kept_embedding_equals_that_of_black_bodies():
    module = _twin()
    x_NCHW = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        kept = [module(x_NCHW)[0] for _ in range(2)]
        computed = module(_with_black_bodies(x_NCHW))[0]
    assert torch.equal(kept[0], kept[1])
    assert float((kept[0] - computed).abs().max()) < 1e-4  # years
    assert float(computed.std()) > 0.1
    embed = _embed(module)
    with torch.no_grad():
        difference = embed(x_NCHW) - embed(_with_black_bodies(x_NCHW))
    assert float(difference.abs().max()) <= 1e-5


def test_kept_embedding_follows_the_weights():
    module, other = _twin(), _twin()
    x_NCHW = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = module(x_NCHW)[0]
        for parameter in _embed(other).proj2.parameters():
            parameter.mul_(-3)
        module.load_state_dict(other.state_dict())
        after = module(x_NCHW)[0]
        assert torch.allclose(after, module(_with_black_bodies(x_NCHW))[0], atol=1e-4)
    assert float((after - before).abs().max()) > 1e-2


def test_kept_embedding_follows_the_type_and_is_copied():
    module = _twin()
    x_NCHW = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        single = module(x_NCHW)[0]
    twice = copy.deepcopy(module).double()
    with torch.inference_mode():
        assert torch.allclose(twice(x_NCHW.double())[0], single, atol=1e-3)
        assert torch.equal(module(x_NCHW)[0], single)


def test_it_can_be_read_in_half_precision_and_back():
    module = _twin()
    x_NCHW = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            half = module(x_NCHW)[0]
        full = module(x_NCHW)[0]
        exact = _twin()(x_NCHW)[0]
    # What half precision left behind is not half precision.
    assert torch.equal(full, exact)
    assert half.dtype == torch.float32
    assert torch.isfinite(half).all()


def test_training_reaches_the_stem_of_missing_bodies():
    module = _twin().train()
    module(torch.randn(2, 3, 64, 64))[0].sum().backward()
    gradient = _embed(module).proj2.weight.grad
    assert gradient is not None
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_a_missing_body_reads_as_a_black_picture(num_outputs: int):
    expert = MiVOLOExpert(_twin(num_outputs), 64, "v", "published", published=True)
    faces = _pictures(3)
    black = np.zeros((90, 40, 3), np.uint8)
    missing = expert.read_with_bodies(faces, [None, None, None])
    assert np.array_equal(missing.age_years, expert.read(faces).age_years)
    drawn = expert.read_with_bodies(list(faces), [black, None, black])
    np.testing.assert_allclose(drawn.age_years, missing.age_years, atol=1e-3)


def test_a_body_changes_the_age_of_its_own_face_alone():
    expert = MiVOLOExpert(_twin(), 64, "v", "published", published=True)
    faces, body = _pictures(2), _pictures(1, 120, 50)[0]
    without = expert.read(faces).age_years
    with_one = expert.read_with_bodies(faces, [None, body]).age_years
    assert abs(with_one[0] - without[0]) < 1e-3
    assert abs(with_one[1] - without[1]) > 1e-3


def test_bodies_that_cannot_be_read_are_refused():
    face_only = MiVOLOExpert(MiVOLO("tiny", 64, with_sigma=False), 64, "v", "p", published=True)
    with pytest.raises(DataError, match="faces alone"):
        face_only.read_with_bodies(_pictures(1), [None])
    with pytest.raises(DataError, match="each of 2 faces"):
        MiVOLOExpert(_twin(), 64, "v", "p").read_with_bodies(_pictures(2), [None])
