"""ResNet50 over 101 ages: torchvision's network, and a slim one of the same class.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from typing import Literal

from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from agetf_pipeline.data.schemas import NUM_AGE_BINS

CODE_VERSION = "1"


class _SlimBottleneck(Bottleneck):
    """torchvision's bottleneck without the fourfold widening at its end."""

    expansion = 1


def build_resnet50(size: Literal["tiny", "full"]) -> ResNet:
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
