"""VGG16 over 101 ages: torchvision's network, and a slim one of the same class.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015, configuration D.
"""

from functools import partial

import torch
from torch import nn
from torchvision.models.vgg import VGG, cfgs, make_layers

from agetf_pipeline.config.experts import NetworkSize
from agetf_pipeline.data.schemas import NUM_AGE_BINS
from agetf_pipeline.experts.augment import Augmentation
from agetf_pipeline.experts.classifier import classifier_ages, classifier_loss, load_classifier
from agetf_pipeline.experts.kinds import Trainer

CODE_VERSION = "1"
_TINY_CHANNELS: dict[str | int, str | int] = {"M": "M", 64: 8, 128: 16, 256: 32, 512: 48}
_TINY_HIDDEN = 128


def build_vgg16(size: NetworkSize) -> VGG:
    """Return the network with 101 logits, randomly initialised.

    Args:
        size: `full` is torchvision's vgg16. `tiny` has the same thirteen convolutions and three
            linear layers with about a tenth of the channels, batch normalisation after each
            convolution (without it so narrow a stack does not start to learn), and a 2 x 2 pool.
    """
    if size == "full":
        return VGG(make_layers(cfgs["D"]), num_classes=NUM_AGE_BINS)
    # The class's own classifier has 120 million weights; on the meta device it takes no memory.
    with torch.device("meta"):
        module = VGG(nn.Sequential(), num_classes=NUM_AGE_BINS, init_weights=False)
    module.features = make_layers([_TINY_CHANNELS[step] for step in cfgs["D"]], batch_norm=True)
    module.avgpool = nn.AdaptiveAvgPool2d((2, 2))
    module.classifier = nn.Sequential(
        nn.Linear(int(_TINY_CHANNELS[512]) * 4, _TINY_HIDDEN),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
        nn.Linear(_TINY_HIDDEN, _TINY_HIDDEN),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
        nn.Linear(_TINY_HIDDEN, NUM_AGE_BINS),
    )
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return module


load_expert = partial(load_classifier, "vgg16", CODE_VERSION, build_vgg16)

TRAINER = Trainer(
    build=lambda expert, _mean_age: build_vgg16(expert.size),
    loss=classifier_loss,
    augmentation=Augmentation(max_zoom=0.05, p_blur=0.1, max_contrast=0.15, max_noise=0.02),
    head=("classifier.6",),
    ages=classifier_ages,
)
