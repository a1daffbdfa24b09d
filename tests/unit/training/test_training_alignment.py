"""Pairs of one camera are compared as they are; other pairs may be moved and relit."""

import torch

from agetf_pipeline.training.alignment import PairAligner, one_camera


def _pair(place: float) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    source = torch.rand(2, 3, 64, 64) - 0.5
    target = source.clone()
    target[:, :, 20:50, 15:50] += 0.4  # the head is another
    target[:, :, :12] += place
    return source, target


def test_the_upper_corners_tell_one_camera_from_two():
    assert torch.equal(one_camera(*_pair(0.0)), torch.ones(2))
    assert (one_camera(*_pair(0.3)) < 1e-6).all()
    values = [float(one_camera(*_pair(place))[0]) for place in (0.01, 0.03, 0.06)]
    assert values == sorted(values, reverse=True)


def test_a_series_before_one_camera_is_not_aligned_whatever_the_aligner_has_learned():
    aligner = PairAligner(8)
    torch.nn.init.normal_(aligner.head.weight, std=0.5)
    source, target = _pair(0.0)
    aligned, effort = aligner(source, source, target)
    assert torch.allclose(aligned, source, atol=1e-5)
    assert torch.equal(effort, torch.zeros(2))
    source, target = _pair(0.3)
    aligned, effort = aligner(source, source, target)
    assert float((aligned - source).detach().abs().mean()) > 0.01
    assert (effort > 0).all()
