import pytest
import torch

from agetf_pipeline.experts.heads import (
    SigmaHead,
    expectation,
    gaussian_nll,
    mean_variance_loss,
    regression_loss,
    two_bin_target,
)


def test_two_bin_target_has_the_age_as_expectation():
    ages = torch.tensor([0.0, 0.25, 37.5, 99.9, 100.0])
    target = two_bin_target(ages)
    assert torch.allclose(target.sum(1), torch.ones(5))
    assert torch.allclose(target @ torch.arange(101.0), ages, atol=1e-4)
    assert (target >= 0).all()


def test_expectation_of_a_uniform_distribution():
    mean, variance = expectation(torch.zeros(1, 101))
    assert mean.item() == pytest.approx(50, abs=1e-3)
    assert variance.item() == pytest.approx((101**2 - 1) / 12, rel=1e-4)


def test_mean_variance_loss_is_the_sum_of_its_parts():
    logits, ages = torch.randn(4, 101), torch.tensor([3.0, 20.0, 50.0, 99.0])
    cross_entropy = torch.nn.functional.cross_entropy(logits, ages.long())
    mean, variance = expectation(logits)
    expected = cross_entropy + 0.2 * 0.5 * ((mean - ages) ** 2).mean() + 0.05 * variance.mean()
    assert mean_variance_loss(logits, ages).item() == pytest.approx(expected.item(), rel=1e-5)


def test_mean_variance_loss_is_least_at_the_age_and_pulls_towards_it():
    ages = torch.tensor([30.0])
    peak = torch.full((1, 101), -20.0)
    peak[0, 30] = 20.0
    wrong = peak.roll(10, 1)
    assert mean_variance_loss(peak, ages) < 1e-3
    assert mean_variance_loss(wrong, ages) > mean_variance_loss(peak.roll(1, 1), ages)
    logits = torch.zeros(1, 101, requires_grad=True)
    mean_variance_loss(logits, ages).backward()
    assert logits.grad is not None
    moved = logits.detach() - 0.1 * logits.grad
    assert mean_variance_loss(moved, ages) < mean_variance_loss(logits.detach(), ages)


def test_regression_loss_is_quadratic_then_linear():
    truth = torch.zeros(1)
    values = [regression_loss(torch.tensor([e]), truth).item() for e in (0.0, 1.0, 10.0, 11.0)]
    assert values[0] == 0
    assert values[1] == pytest.approx(0.5 * 1 / 2 / 10)
    assert values[3] - values[2] == pytest.approx(0.1)
    age = torch.tensor([10.0], requires_grad=True)
    regression_loss(age, truth).backward()
    assert age.grad is not None
    assert age.grad.item() == pytest.approx(0.1)


def test_gaussian_nll_is_least_at_the_size_of_the_error():
    sigmas = torch.linspace(1, 12, 111)
    losses = torch.stack([gaussian_nll(torch.tensor([5.0]), s[None]) for s in sigmas])
    assert sigmas[losses.argmin()].item() == pytest.approx(5.0, abs=0.06)


def test_sigma_head_starts_at_its_initial_spread():
    sigma = SigmaHead(32, initial_years=7.0)(torch.randn(5, 32))
    assert torch.allclose(sigma, torch.full((5,), 7.0), atol=1e-4)
