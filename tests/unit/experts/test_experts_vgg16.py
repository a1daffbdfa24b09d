import numpy as np
import torch
from torch import nn
from torchvision.models import vgg16

from agetf_pipeline.experts.classifier import ClassifierExpert
from agetf_pipeline.experts.vgg16 import build_vgg16


def test_full_size_is_torchvisions():
    with torch.device("meta"):
        theirs = vgg16(num_classes=101).state_dict()
        ours = build_vgg16("full").state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_tiny_has_the_depth_of_vgg16_and_real_weights():
    module = build_vgg16("tiny")
    assert sum(isinstance(layer, nn.Conv2d) for layer in module.modules()) == 13
    assert sum(isinstance(layer, nn.Linear) for layer in module.modules()) == 3
    assert not any(p.is_meta for p in module.parameters())
    assert sum(p.numel() for p in module.parameters()) < 1_000_000


def test_initial_weights_follow_the_seed():
    torch.manual_seed(3)
    first = build_vgg16("tiny").state_dict()
    torch.manual_seed(3)
    second = build_vgg16("tiny").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_expert_gives_distributions():
    torch.manual_seed(0)
    expert = ClassifierExpert("vgg16", build_vgg16("tiny"), 64, "imagenet", "v", "synthetic")
    readings = expert.read(np.zeros((2, 64, 64, 3), np.uint8))
    assert readings.distribution is not None
    assert np.allclose(readings.distribution.sum(1), 1, atol=1e-5)
    assert readings.reasons == (None, None)
