"""A step's losses: aimed at the right label, felt by the generator, and weighted by trust."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from agetf_pipeline.age_transformer import losses
from agetf_pipeline.age_transformer.discriminator import Discriminator
from agetf_pipeline.age_transformer.lpips import Lpips
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.sizes import ModelSettings
from agetf_pipeline.config.train import LossWeights
from agetf_pipeline.training import objective
from agetf_pipeline.training.alignment import PairAligner
from agetf_pipeline.training.guidance import (
    AGE_REGRESSOR,
    IDENTITY_EMBEDDER,
    Guidance,
    build_critic,
)
from agetf_pipeline.training.objective import StepData

SMALL = ModelSettings(32, 1, (8, 16, 16), (1, 1, 1), 1, 2, 16)
NAMES = [name for name in LossWeights.model_fields if name != "adversarial"]


def only(*names: str) -> LossWeights:
    """Weights of one for these losses, none for the others."""
    return LossWeights(**{name: float(name in names) for name in LossWeights.model_fields})


class Recorder(nn.Module):
    """Hands on what another module is called with."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.calls: list[tuple] = []

    def forward(self, *arguments):
        self.calls.append(arguments)
        return self.module(*arguments)


class Setting:
    """Small networks that are not at their start, and a batch of four faces at three ages."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = AgeTransformer(SMALL)
        with torch.no_grad():  # away from the zeros at which nothing depends on the age
            for layer, deviation in ((self.model.to_flow, 0.5), (self.model.to_image, 0.05)):
                layer.weight.normal_(0, deviation)
        self.discriminator = Recorder(Discriminator(SMALL))
        self.aligner = PairAligner(8)
        lpips = Lpips()
        for head in lpips.heads:
            nn.init.uniform_(head)
        networks = [build_critic(name, 8, 32) for name in (AGE_REGRESSOR, IDENTITY_EMBEDDER)]
        self.guidance = Guidance(*(n.eval().requires_grad_(False) for n in (*networks, lpips)))
        self.ages = torch.tensor([[20.0, 40, 70], [30, 10, 80], [50, 60, 5], [8, 33, 66]])
        has_target = torch.tensor([[1.0, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]])
        self.data = StepData(
            torch.rand(4, 3, 32, 32) * 2 - 1, self.ages, torch.rand(4, 3, 3, 32, 32) * 2 - 1,
            has_target, torch.full((4, 3), 9.0), None, 0.5, 0, True,
        )  # fmt: skip

    def losses(self, weights: LossWeights, **changes):
        return objective.generator_losses(
            self.model, self.discriminator, self.aligner, self.guidance,
            replace(self.data, **changes), weights,
        )  # fmt: skip


@pytest.fixture
def setting() -> Setting:
    return Setting()


def step_of(name: str) -> int:
    return 1 if name == "lpips" else 0


@pytest.mark.parametrize("name", [*NAMES, "adversarial"])
def test_a_loss_alone_moves_the_generator(setting, name):
    parts, _ = setting.losses(only(name), step=step_of(name))
    assert set(parts) == {name}
    assert parts[name].ndim == 0
    objective.total_loss(parts, only(name)).backward()
    for where in ("stem.weight", "to_image.weight"):
        gradient = setting.model.get_parameter(where).grad
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0, where


@pytest.mark.parametrize("name", ["age", "order", "identity"])
def test_frozen_networks_stay_as_they_are(setting, name):
    parts, _ = setting.losses(only(name))
    parts[name].backward()
    for network in (setting.guidance.age_regressor, setting.guidance.identity_embedder):
        assert all(p.grad is None for p in network.parameters())


def test_ages_are_held_against_what_was_asked_for_not_against_the_source(setting, monkeypatch):
    seen = []
    monkeypatch.setattr(
        losses, "age_loss", lambda logits, ages: seen.append(ages) or logits.sum(dim=1)
    )
    setting.losses(only("age"))
    assert seen[0].tolist() == [40, 70, 10, 80, 60, 5, 33, 66]


def test_the_age_loss_reads_each_rendering_beside_its_own_age(setting):
    """Ages swapped between source and target, or between columns, give another value."""
    parts, rendered = setting.losses(only("age"))

    def by_hand(images, ages):
        logits = setting.guidance.age_regressor(images.flatten(0, 1))
        return losses.age_loss(logits, ages.flatten()).mean()

    images, ages = rendered.image[:, 1:], setting.ages[:, 1:]
    torch.testing.assert_close(parts["age"], by_hand(images, ages))
    for wrong in (ages.flip(1), setting.ages[:, :1].expand(-1, 2)):
        assert (parts["age"] - by_hand(images, wrong)).abs() > 1e-3


def test_identity_is_held_against_the_source_with_the_margin_of_the_gap(setting, monkeypatch):
    seen = []
    true_loss = losses.identity_loss
    monkeypatch.setattr(losses, "identity_loss", lambda *a: seen.append(a) or true_loss(*a))
    setting.losses(only("identity"))
    ((z, source, gap),) = seen
    own = setting.guidance.identity_embedder(setting.data.source)
    torch.testing.assert_close(source, own.repeat_interleave(2, dim=0))
    assert z.requires_grad
    assert not source.requires_grad
    assert gap.tolist() == [20, 50, 20, 50, 10, 45, 25, 58]


def test_the_generator_is_judged_at_the_age_asked_for_and_real_faces_at_their_own(setting):
    _, rendered = setting.losses(only("adversarial"), step=0)
    image, ages = setting.discriminator.calls[0]
    assert ages.tolist() == setting.ages[:, 1].tolist()
    torch.testing.assert_close(image, rendered.image[:, 1])
    fake, fake_ages = objective.adversarial_fakes(rendered, replace(setting.data, step=1))
    assert fake_ages.tolist() == setting.ages[:, 2].tolist()
    setting.discriminator.calls.clear()
    objective.discriminator_losses(
        setting.discriminator, fake.detach(), fake_ages, setting.data, False
    )
    (real, real_ages), (_, judged_ages) = setting.discriminator.calls
    assert real is setting.data.source
    assert real_ages.tolist() == setting.ages[:, 0].tolist()
    assert judged_ages is fake_ages


def test_real_and_rendered_faces_are_never_compared_with_each_other(setting):
    """The deviation within a group must not change for real faces when the rendered ones do."""
    fakes = torch.rand(4, 3, 32, 32), torch.zeros(4, 3, 32, 32)
    setting.discriminator.module.requires_grad_(False)
    logits = []
    for fake in fakes:
        setting.discriminator.calls.clear()
        objective.discriminator_losses(
            setting.discriminator, fake, setting.ages[:, 1], setting.data, False
        )
        logits.append(setting.discriminator.module(*setting.discriminator.calls[0]))
    torch.testing.assert_close(*logits)


def test_the_cycle_asks_for_the_source_at_the_source_age_from_the_last_rendering(setting):
    seen = []
    setting.model.register_forward_hook(lambda _, args, out: seen.append((args, out)))
    parts, rendered = setting.losses(only("cycle"))
    ((image, ages, _), back) = seen[0]
    torch.testing.assert_close(image, rendered.image[:, -1])
    assert ages.tolist() == setting.ages[:, :1].tolist()
    expected = losses.pixel_loss(back.image[:, 0], setting.data.source).mean()
    torch.testing.assert_close(parts["cycle"], expected)  # equal trust: the plain mean


@pytest.mark.parametrize("name", ["reconstruction", "lpips", "cycle", "paired"])
def test_an_unsure_label_counts_less_where_the_label_decides(setting, name):
    """Item 0 is made unlike its target; the loss grows by less when its label is unsure."""
    source = setting.data.source.clone()
    source[0] = 1.0
    unsure = setting.data.variance.clone()
    unsure[0] = 400.0
    step = step_of(name)
    sure, _ = setting.losses(only(name), source=source, step=step)
    doubted, _ = setting.losses(only(name), source=source, variance=unsure, step=step)
    alone = torch.zeros(4, 3) + 400.0
    alone[0] = 0.0
    trusted, _ = setting.losses(only(name), source=source, variance=alone, step=step)
    assert (doubted[name] - sure[name]) * (trusted[name] - sure[name]) < 0


@pytest.mark.parametrize("name", ["age", "order", "identity", "smoothness", "adversarial"])
def test_what_was_asked_for_counts_whatever_the_label_of_the_source(setting, name):
    one, _ = setting.losses(only(name))
    two, _ = setting.losses(only(name), variance=torch.full((4, 3), 400.0))
    torch.testing.assert_close(one[name], two[name])


def test_pairs_are_held_against_their_own_target(setting):
    first, _ = setting.losses(only("paired"))
    changed = setting.data.target.clone()
    changed[1], changed[:, 2] = 0.5, 0.5  # without a true picture: must not count
    same, _ = setting.losses(only("paired"), target=changed)
    torch.testing.assert_close(first["paired"], same["paired"])
    changed[0, 1] = 0.5
    other, _ = setting.losses(only("paired"), target=changed)
    assert (other["paired"] - first["paired"]).abs() > 1e-3


def test_dear_losses_take_their_steps_and_count_for_those_between(setting):
    weights = only("cycle", "lpips")
    steps = [set(setting.losses(weights, step=step)[0]) for step in range(6)]
    assert steps == [{"cycle"}, {"lpips"}, set()] * 2
    parts, _ = setting.losses(weights, step=1)
    torch.testing.assert_close(objective.total_loss(parts, weights), 3 * parts["lpips"])


def test_without_its_network_there_is_no_lpips(setting):
    setting.guidance = replace(setting.guidance, lpips=None)
    parts, _ = setting.losses(only("lpips", "reconstruction"), step=1)
    assert set(parts) == {"reconstruction"}


def test_weights_come_from_the_config(setting):
    parts, _ = setting.losses(LossWeights())
    assert set(parts) == {*NAMES, "adversarial"} - {"lpips"}
    weights = LossWeights(**dict.fromkeys(LossWeights.model_fields, 2.0))
    expected = sum(2 * value * (3 if name == "cycle" else 1) for name, value in parts.items())
    torch.testing.assert_close(objective.total_loss(parts, weights), expected)
