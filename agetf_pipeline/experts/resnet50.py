"""ResNet50 over 101 ages: torchvision's network, and a slim one of the same class.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from functools import partial

from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from agetf_pipeline.config.experts import NetworkSize
from agetf_pipeline.data.schemas import NUM_AGE_BINS
from agetf_pipeline.experts.augment import Augmentation
from agetf_pipeline.experts.classifier import classifier_ages, classifier_loss, load_classifier
from agetf_pipeline.experts.kinds import Trainer

CODE_VERSION = "1"


class _SlimBottleneck(Bottleneck):
    """torchvision's bottleneck without the fourfold widening at its end."""

    expansion = 1


def build_resnet50(size: NetworkSize) -> ResNet:
    """Return the network with 101 logits, randomly initialised.

    Args:
        size: `full` is torchvision's resnet50 (bottlenecks 3, 4, 6, 3). `tiny` has fewer of them,
            a quarter as wide inside and outside, and a stem of 3 x 3: at 64 pixels the 7 x 7 one
            costs as much as everything behind it.
    """
    if size == "full":
        return ResNet(Bottleneck, [3, 4, 6, 3], num_classes=NUM_AGE_BINS)
    module = ResNet(_SlimBottleneck, [1, 2, 2, 1], num_classes=NUM_AGE_BINS, width_per_group=16)
    module.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(module.conv1.weight, mode="fan_out", nonlinearity="relu")
    return module


load_expert = partial(load_classifier, "resnet50", CODE_VERSION, build_resnet50)

TRAINER = Trainer(
    build=lambda expert, _mean_age: build_resnet50(expert.size),
    loss=classifier_loss,
    augmentation=Augmentation(max_shift=0.04, p_low_res=0.15, max_saturation=0.3),
    head=("fc",),
    ages=classifier_ages,
)
