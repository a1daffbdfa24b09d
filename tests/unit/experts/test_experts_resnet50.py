import numpy as np
import torch
from torchvision.models import resnet50

from agetf_pipeline.experts.classifier import ClassifierExpert
from agetf_pipeline.experts.resnet50 import build_resnet50


def test_full_size_is_torchvisions():
    with torch.device("meta"):
        ours, theirs = build_resnet50("full").state_dict(), resnet50(num_classes=101).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_tiny_is_the_same_class_and_small():
    module = build_resnet50("tiny")
    assert type(module) is type(resnet50(num_classes=2))
    assert module.fc.out_features == 101
    assert sum(p.numel() for p in module.parameters()) < 2_000_000


def test_expert_gives_distributions():
    torch.manual_seed(0)
    expert = ClassifierExpert("resnet50", build_resnet50("tiny"), 64, "imagenet", "v", "synthetic")
    faces = np.random.default_rng(0).integers(0, 256, (3, 80, 80, 3), np.uint8)
    readings = expert.read(faces)
    assert readings.distribution is not None
    assert readings.distribution.shape == (3, 101)
    assert np.allclose(readings.distribution.sum(1), 1, atol=1e-5)
    expected = readings.distribution @ np.arange(101)
    assert np.allclose(readings.age_years, expected, atol=1e-3)
    alone = expert.read(faces[1:2])
    assert np.allclose(alone.age_years[0], readings.age_years[1], atol=1e-3)
