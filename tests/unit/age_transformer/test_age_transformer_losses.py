"""Every loss: its target, its range, and its gradient."""

import pytest
import torch

from agetf_pipeline.age_transformer import losses


def images(count: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 16, 16, generator=generator) * 2 - 1


@pytest.mark.parametrize(
    ("loss", "highest"),
    [(losses.pixel_loss, 2.0), (losses.edge_loss, 8.0), (losses.structure_loss, 2.0)],
)
def test_image_losses_are_zero_at_the_target_and_bounded(loss, highest):
    x, y = images(), images(seed=1)
    assert loss(x, x).shape == (3,)
    torch.testing.assert_close(loss(x, x), torch.zeros(3), atol=1e-5, rtol=0)
    assert (loss(x, y) > 0.01).all()
    assert (loss(x, y) <= highest).all()
    assert (loss(torch.ones_like(x), -torch.ones_like(x)) <= highest).all()


@pytest.mark.parametrize("loss", [losses.pixel_loss, losses.edge_loss, losses.structure_loss])
def test_image_losses_fall_along_their_gradient(loss):
    x, y = images().requires_grad_(), images(seed=1)
    value = loss(x, y).sum()
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient.abs().sum() > 0
    assert loss(x - 1e-2 * gradient / gradient.norm(), y).sum() < value


@pytest.mark.parametrize("loss", [losses.pixel_loss, losses.edge_loss, losses.structure_loss])
def test_weights_confine_image_losses_to_where_they_are(loss):
    x = images()
    y = x.clone()
    y[..., :8] = 0.9  # differs on the left alone
    left, right = torch.zeros(3, 1, 16, 16), torch.zeros(3, 1, 16, 16)
    left[..., :8], right[..., 12:] = 1, 1
    torch.testing.assert_close(loss(x, y, right), torch.zeros(3), atol=1e-5, rtol=0)
    assert (loss(x, y, left) > loss(x, y)).all()


def test_head_weights_count_the_head_always_and_the_rest_where_the_borders_agree():
    x = images(2) * 0.1
    other = x.clone()
    other[..., :2] = 1
    other[..., -2:] = -1
    alike, unlike = losses.head_weights(x, x), losses.head_weights(x, other)
    assert (alike > 0.99).all()
    assert (unlike[..., 7:9, 7:9] > 0.99).all()
    torch.testing.assert_close(unlike[..., 0, 0], torch.full((2, 1), 0.5), atol=0.01, rtol=0)


def test_preservation_holds_the_outside_alone():
    x = images()
    inside, outside = x.clone(), x.clone()
    inside[..., 6:10, 6:10] += 0.5
    outside[..., :2, :2] += 0.5
    assert (losses.preservation_loss(inside, x) < 1e-3).all()
    moved = outside.requires_grad_()
    value = losses.preservation_loss(moved, x)
    assert (value > 1e-3).all()
    assert (value < 2).all()
    value.sum().backward()
    assert moved.grad[..., 0, 0].min() > 0


def test_age_loss_is_least_at_the_age_and_grows_with_the_distance():
    ages = torch.tensor([30.0, 30.0, 30.0])
    read = torch.tensor([30.0, 40.0, 70.0])
    logits = torch.log(losses.soft_age_target(read, torch.full((3,), 3.0), 101) + 1e-12)
    values = losses.age_loss(logits, ages)
    assert values[0] == pytest.approx(0, abs=1e-3)
    assert values[0] < values[1] < values[2]
    # One step of ten years: Huber 0.5, and half a unit of earth moving.
    assert values[1] == pytest.approx(1.0, abs=0.02)


def test_age_loss_gradient_moves_the_age_that_is_read_towards_the_target():
    logits = torch.zeros(1, 101, requires_grad=True)  # reads 50
    losses.age_loss(logits, torch.tensor([80.0])).sum().backward()
    moved = logits.detach() - 0.5 * logits.grad
    assert losses.expected_age(moved) > losses.expected_age(logits)


def test_soft_age_targets_are_distributions_about_their_ages():
    target = losses.soft_age_target(torch.tensor([20.0, 61.3]), torch.tensor([2.0, 5.0]), 101)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(2))
    mean = target @ torch.arange(101.0)
    torch.testing.assert_close(mean, torch.tensor([20.0, 61.3]), atol=0.01, rtol=0)


def test_identity_asks_for_less_across_a_larger_gap_and_never_for_one():
    margins = losses.identity_margin(torch.tensor([0.0, 20.0, 80.0, 100.0]))
    assert (margins < 1).all()
    assert margins[0] > margins[1] > margins[2] == margins[3]
    e = torch.eye(2)
    gap = torch.tensor([10.0, 10.0])
    assert losses.identity_loss(e, e, gap).sum() == 0  # already near enough: no pull towards 1
    far = e.flip(0).clone().requires_grad_()
    value = losses.identity_loss(far, e, gap)
    assert (value > 0.5).all()
    assert (value <= 2).all()
    value.sum().backward()
    assert far.grad.abs().sum() > 0


def test_order_loss_punishes_ages_read_in_the_wrong_order():
    target = torch.tensor([[10.0, 30.0, 60.0]])
    right = losses.order_loss(torch.tensor([[10.0, 30.0, 60.0]]), target)
    wrong = losses.order_loss(torch.tensor([[60.0, 30.0, 10.0]]), target)
    assert right < 0.01
    assert wrong > 5
    shuffled = losses.order_loss(torch.tensor([[30.0, 60.0, 10.0]]), target[:, [1, 2, 0]])
    torch.testing.assert_close(shuffled, right)
    read = torch.tensor([[40.0, 20.0, 60.0]], requires_grad=True)
    losses.order_loss(read, target).sum().backward()
    assert read.grad[0, 0] > 0 > read.grad[0, 1]  # the first down, the second up


def test_smoothness_is_zero_for_constant_maps_and_decays_with_the_gap():
    flat_mask, flat_flow = torch.full((2, 8, 8), 0.4), torch.full((2, 2, 4, 4), 0.1)
    gap = torch.tensor([0.0, 40.0])
    torch.testing.assert_close(losses.smoothness_loss(flat_mask, flat_flow, gap), torch.zeros(2))
    mask = torch.rand(1, 8, 8).expand(2, -1, -1).clone().requires_grad_()
    near, far = losses.smoothness_loss(mask, flat_flow, gap)
    assert near > far > 0
    near.backward()
    assert mask.grad.abs().sum() > 0


def test_adversarial_losses_pull_in_opposite_directions():
    fake = torch.zeros(4, requires_grad=True)
    losses.generator_loss(fake).sum().backward()
    generator_gradient = fake.grad.clone()
    fake.grad = None
    losses.discriminator_loss(torch.zeros(4), fake).sum().backward()
    assert (generator_gradient < 0).all()
    assert (fake.grad > 0).all()
    assert losses.discriminator_loss(torch.full((1,), 20.0), torch.full((1,), -20.0)) < 1e-6


def test_r1_is_the_squared_gradient_at_real_images():
    real = images().requires_grad_()
    penalty = losses.r1_penalty((3 * real).sum(dim=(1, 2, 3)), real)
    torch.testing.assert_close(penalty, torch.full((3,), 9.0 * 3 * 16 * 16))


def test_curriculum_trusts_unsure_labels_later():
    variance = torch.tensor([0.0, 9.0, 225.0])
    early, late = losses.curriculum_weight(variance, 0.0), losses.curriculum_weight(variance, 1.0)
    torch.testing.assert_close(early, torch.tensor([1.0, 0.5, 1 / 26]))
    assert (late >= early).all()
    assert late[2] == pytest.approx(0.5)


def test_weighted_mean_ignores_items_without_weight():
    values = torch.tensor([1.0, 5.0, 100.0])
    assert losses.weighted_mean(values, torch.tensor([1.0, 1.0, 0.0])) == 3
    assert losses.weighted_mean(values, torch.zeros(3)) == 0


def test_weighted_mean_of_a_part_is_divided_by_the_weight_of_the_whole():
    values, weights = torch.tensor([1.0, 5.0, 3.0, 7.0]), torch.tensor([1.0, 0.5, 0.25, 1.0])
    whole = losses.weighted_mean(values, weights)
    shared = weights.sum() / 2  # the mean over two processes
    parts = [losses.weighted_mean(values[i : i + 2], weights[i : i + 2], shared) for i in (0, 2)]
    torch.testing.assert_close(sum(parts) / 2, whole)


def test_the_curriculum_believes_half_at_3_years_at_first_and_at_15_in_the_end():
    for progress, sigma in ((0.0, 3.0), (0.5, 9.0), (1.0, 15.0), (-1.0, 3.0), (2.0, 15.0)):
        weight = losses.curriculum_weight(torch.tensor([sigma**2]), progress)
        assert weight == pytest.approx(0.5)


def test_swapped_ages_cost_an_age_loss_that_right_ones_do_not():
    """A loss aimed at the source's age instead of the target's would pass neither line."""
    source, target = torch.tensor([20.0, 70.0]), torch.tensor([70.0, 20.0])
    logits = torch.log(losses.soft_age_target(target, torch.full((2,), 3.0), 101) + 1e-12)
    assert (losses.age_loss(logits, target) < 0.01).all()
    assert (losses.age_loss(logits, source) > 5).all()


@pytest.mark.parametrize(
    "loss", [losses.generator_loss, lambda x: losses.discriminator_loss(-x, x)]
)
def test_adversarial_losses_are_finite_and_felt_where_a_sigmoid_would_saturate(loss):
    logits = torch.tensor([-1e3, -30.0, 0.0, 30.0, 1e3], requires_grad=True)
    values = loss(logits)
    assert torch.isfinite(values).all()
    assert (values >= 0).all()
    values.sum().backward()
    worst = logits.grad[[0]] if loss is losses.generator_loss else logits.grad[[4]]
    assert worst.abs() >= 1


def test_the_margin_of_identity_stays_at_its_end_beyond_the_range():
    gap = torch.tensor([0.0, 80.0, 200.0])
    torch.testing.assert_close(losses.identity_margin(gap), torch.tensor([0.85, 0.45, 0.45]))


@pytest.mark.parametrize("read", [0.0, 100.0])
def test_age_loss_is_bounded_at_the_ends_of_the_range(read):
    logits = torch.full((1, 101), -20.0)
    logits[0, int(read)] = 20.0
    value = losses.age_loss(logits, torch.tensor([100.0 - read]))
    assert value == pytest.approx(9.5 + 5.0, abs=0.3)  # Huber of ten units, half of ten of earth


def test_order_loss_at_the_margin_is_a_softplus_of_zero():
    target = torch.tensor([[10.0, 15.0], [10.0, 40.0], [10.0, 12.0]])
    read = torch.tensor([[10.0, 15.0], [10.0, 15.0], [10.0, 12.0]])
    torch.testing.assert_close(losses.order_loss(read, target), torch.full((3,), 2.0).log())
