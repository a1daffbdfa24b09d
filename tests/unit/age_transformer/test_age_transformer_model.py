"""Embedding, model, sizes, discriminator."""

import math

import pytest
import torch

from agetf_pipeline.age_transformer.discriminator import Discriminator, minibatch_deviation
from agetf_pipeline.age_transformer.embedding import AgeEmbedding, anchor_weights
from agetf_pipeline.age_transformer.layers import warp
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.sizes import (
    ANCHORS_YEARS,
    SIZES,
    ModelSettings,
    settings_of,
)
from agetf_pipeline.core.errors import ConfigError

SMALL = ModelSettings(32, 1, (8, 16, 16), (1, 1, 1), 1, 2, 16)


def small_model(**changes) -> AgeTransformer:
    torch.manual_seed(0)
    model = AgeTransformer(ModelSettings(**{**SMALL.to_card(), **changes})).eval()
    # Away from the start, at which flow and synthesis say nothing.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def faces(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_anchor_weights_interpolate_between_neighbours():
    anchors = torch.tensor([5.0, 15.0, 25.0])
    weights = anchor_weights(torch.tensor([0.0, 5.0, 12.5, 15.0, 25.0, 90.0]), anchors)
    expected = [[1, 0, 0], [1, 0, 0], [0.25, 0.75, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float32))


def test_embedding_is_continuous_over_all_ages():
    torch.manual_seed(0)
    embedding = AgeEmbedding(ANCHORS_YEARS, 32, 6)
    ages = torch.linspace(0, 100, 2001)
    steps = (embedding(ages)[1:] - embedding(ages)[:-1]).norm(dim=1)
    # 0.05 years at most apart: no jump, not even where anchors change.
    assert steps.max() < 0.1
    assert embedding(torch.tensor([0.0])).sub(embedding(torch.tensor([100.0]))).norm() > 0.5


def test_embedding_gives_gradients_to_both_neighbouring_anchors():
    embedding = AgeEmbedding(ANCHORS_YEARS, 8, 4)
    embedding(torch.tensor([12.0])).sum().backward()
    touched = embedding.anchor_table.grad.abs().sum(dim=1) > 0
    assert touched.tolist() == [True, True] + [False] * 8


def test_untrained_model_returns_nearly_the_image():
    torch.manual_seed(0)
    model = AgeTransformer(SMALL).eval()
    x = faces(2)
    with torch.no_grad():
        rendered = model(x, torch.tensor([[5.0, 95.0], [30.0, 60.0]]))
    assert rendered.image.shape == (2, 2, 3, 32, 32)
    assert rendered.flow.abs().max() == 0
    assert (rendered.image - x[:, None]).abs().mean() < 0.15


def test_ages_are_rendered_independently_of_each_other_and_in_any_order():
    model, x = small_model(), faces(2)
    ages = torch.tensor([[5.0, 33.3, 95.0], [70.0, 2.0, 41.0]])
    with torch.no_grad():
        every = model(x, ages).image
        single = torch.stack([model(x, ages[:, i : i + 1]).image[:, 0] for i in range(3)], dim=1)
        turned = model(x, ages.flip(1)).image.flip(1)
    torch.testing.assert_close(every, single, atol=1e-5, rtol=0)
    torch.testing.assert_close(every, turned, atol=1e-5, rtol=0)
    assert (every[:, 0] - every[:, 2]).abs().max() > 1e-3


def test_off_anchor_ages_lie_between_their_neighbours():
    model, x = small_model(), faces(1)
    with torch.no_grad():
        image = model(x, torch.tensor([[34.9, 35.0, 35.1, 95.0]])).image[0]
    near = (image[0] - image[1]).abs().max(), (image[2] - image[1]).abs().max()
    assert max(near) < 0.2 * (image[3] - image[1]).abs().max()


def test_output_stays_in_range_and_mask_is_a_share():
    model = small_model()
    with torch.no_grad():
        rendered = model(faces(2), torch.tensor([[0.0, 100.0]] * 2))
    assert rendered.image.abs().max() <= 1
    assert rendered.mask.min() >= 0
    assert rendered.mask.max() <= 1
    assert rendered.flow.abs().max() <= SMALL.max_flow


def test_null_token_stands_for_absent_guidance():
    model, x = small_model(vlm_dim=6), faces(2)
    ages = torch.tensor([[20.0], [20.0]])
    vlm = torch.randn(2, 6, generator=torch.Generator().manual_seed(2))
    dropped = vlm.clone()
    dropped[1] = float("nan")
    with torch.no_grad():
        none, given, mixed = model(x, ages), model(x, ages, vlm), model(x, ages, dropped)
    assert (none.image[0] - given.image[0]).abs().max() > 1e-4
    torch.testing.assert_close(mixed.image[0], given.image[0])
    torch.testing.assert_close(mixed.image[1], none.image[1])


def test_every_parameter_gets_a_gradient():
    model = small_model(vlm_dim=6)
    vlm = torch.randn(2, 6)
    vlm[1] = float("nan")
    model(faces(2), torch.tensor([list(ANCHORS_YEARS)] * 2), vlm).image.square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_warp_moves_the_image_and_zero_flow_does_not():
    x = faces(1)
    torch.testing.assert_close(warp(x, torch.zeros(1, 2, 32, 32)), x, atol=1e-5, rtol=0)
    flow = torch.zeros(1, 2, 32, 32)
    flow[:, 0] = 4 / 32  # each pixel is taken from four to its right
    torch.testing.assert_close(warp(x, flow)[..., :28], x[..., 4:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("tiny-64", 0.8, 1.1),
        ("tiny-128", 2.0, 2.6),
        ("base-128", 23, 28),
        ("base-256", 23, 28),
        ("large-256", 65, 80),
        ("large-512", 65, 80),
    ],
)
def test_sizes_have_the_parameters_they_are_named_for(name, low, high):
    with torch.device("meta"):
        model = AgeTransformer(settings_of(name))
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert low <= millions <= high
    assert model.settings.size_px == int(name.split("-")[1])


@pytest.mark.parametrize(("name", "highest_gflop"), [("tiny-64", 2.5), ("base-128", 65)])
def test_ten_renderings_stay_within_their_operations(name, highest_gflop):
    from torch.utils.flop_counter import FlopCounterMode

    settings = settings_of(name)
    with torch.device("meta"):
        model = AgeTransformer(settings)
        image = torch.zeros(1, 3, settings.size_px, settings.size_px)
        ages = torch.zeros(1, 10)
    # searchsorted has no meaning on the meta device's values, only shapes: the embedding of
    # constant anchors needs none of its numbers here.
    model.age.forward = lambda ages_N: ages_N.new_zeros(len(ages_N), settings.style_dim)
    with FlopCounterMode(display=False) as counter:
        model(image, ages)
    assert counter.get_total_flops() / 1e9 <= highest_gflop


def test_settings_survive_their_card_and_refuse_levels_that_do_not_fit():
    for settings in SIZES.values():
        as_json = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.to_card().items()}
        assert ModelSettings.from_card(as_json) == settings
    with pytest.raises(ConfigError, match="8 x 8"):
        ModelSettings(64, 2, (8, 16), (1, 1), 1, 2, 16)
    with pytest.raises(ConfigError, match=r"train\.model"):
        settings_of("huge-9000")
    with pytest.raises(ConfigError, match="another version"):
        ModelSettings.from_card({**SMALL.to_card(), "unknown": 1})


def test_discriminator_judges_the_age_too():
    torch.manual_seed(0)
    discriminator = Discriminator(SMALL)
    x = faces(4)
    young = discriminator(x, torch.full((4,), 5.0))
    old = discriminator(x, torch.full((4,), 90.0))
    assert young.shape == (4,)
    assert (young - old).abs().max() > 1e-4
    assert all(math.isfinite(value) for value in old.tolist())


def test_minibatch_deviation_sees_a_collapsed_batch():
    same = torch.ones(4, 2, 3, 3)
    assert minibatch_deviation(same, 4).max() < 1e-3
    assert minibatch_deviation(torch.randn(4, 2, 3, 3), 4).min() > 0.1
