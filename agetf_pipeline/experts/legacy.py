"""Checkpoints of the research code: the same networks as torchvision's, under other names.

VGG16: the thirteen convolutions stand in blocks (`conv.0.conv1`), the three linear layers are
`fc1.0`, `fc2.0` and `cls`. ResNet50: the Caffe layout of VGGFace2 (`conv2_1_1x1_reduce`), which
strides in the first 1 x 1 convolution of a stage instead of the 3 x 3 one, pools after the stem
without padding but over the edge, and carries three heads that its ages do not go through beside
the one that they do (`classage`): VGGFace2's 8,631 identities and two that are never called.

Every tensor has its place; only those three heads are left out, by name.
The keys were taken from the research code's module definitions; docs/fine_tuning.md says how the
equality with them was checked.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.vgg import VGG, cfgs, make_layers

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.data.schemas import NUM_AGE_BINS

if TYPE_CHECKING:
    from agetf_pipeline.config.experts import ExpertConfig

INPUT_PX = 224
"""The side that the published networks read."""

_UNUSED = frozenset(
    f"{head}.{part}" for head in ("classifier", "classgage", "fc") for part in ("weight", "bias")
)
_VGG_BLOCKS = (2, 2, 3, 3, 3)
_RESNET_STAGE = re.compile(r"conv([2-5])_(\d)_(1x1_reduce|3x3|1x1_increase|1x1_proj)(_bn)?")
_RESNET_PARTS = {"1x1_reduce": 1, "3x3": 2, "1x1_increase": 3}


@dataclass(frozen=True)
class LegacyWeights:
    """A recognised checkpoint.

    Attributes:
        kind: The expert's kind that it belongs to.
        profile: The pixel normalisation that it was trained on.
        build: Makes the network, its weights not yet set.
        state: The tensors under the network's names.
    """

    kind: str
    profile: str
    build: Callable[[], nn.Module]
    state: dict[str, Tensor]

    def require(self, kind: str, expert: "ExpertConfig", source: str) -> None:
        """Refuse settings that the checkpoint cannot be read with.

        Raises:
            WeightsError: It is another kind of network, or the config asks for another size.
        """
        found = (kind, expert.size, expert.input_px)
        expected = (self.kind, "full", INPUT_PX)
        if found != expected:
            raise WeightsError(
                f"Expected settings {expected} (kind, size, input_px) for the research code's "
                f"checkpoint {source}; found {found}. Correct train_experts.experts in the config."
            )


def recognise_legacy(state: dict[str, Tensor], source: str) -> LegacyWeights | None:
    """Return a checkpoint of the research code under torchvision's names; None for any other.

    Args:
        state: A state dict as it was read.
        source: Where it was read, for messages.

    Raises:
        WeightsError: It is one of the research code's, with keys that have no place.
    """
    if "cls.weight" in state and "conv.0.conv1.weight" in state:
        renamed = _renamed(state, _vgg16_name, source)
        return LegacyWeights("vgg16", "legacy_vgg_bgr", build_legacy_vgg16, renamed)
    if "classage.weight" in state and "conv1_7x7_s2.weight" in state:
        kept = {key: value for key, value in state.items() if key not in _UNUSED}
        renamed = _with_counters(_renamed(kept, _resnet50_name, source))
        head = renamed.get("fc.weight")
        if head is not None and head.ndim == 4:  # a 1 x 1 convolution over one pooled pixel
            renamed["fc.weight"] = head.flatten(1)
        return LegacyWeights("resnet50", "raw_bgr", build_legacy_resnet50, renamed)
    return None


def build_legacy_vgg16() -> VGG:
    """Return torchvision's VGG16 with 101 logits, its weights not yet set."""
    # Random weights would be 134 million numbers drawn for nothing.
    with torch.device("meta"):
        module = VGG(make_layers(cfgs["D"]), num_classes=NUM_AGE_BINS, init_weights=False)
    return module.to_empty(device="cpu")


def build_legacy_resnet50() -> ResNet:
    """Return torchvision's ResNet50 in the Caffe layout, its weights not yet set."""
    with torch.device("meta"):
        module = ResNet(Bottleneck, [3, 4, 6, 3], num_classes=NUM_AGE_BINS)
    module = module.to_empty(device="cpu")
    for stage in (module.layer2, module.layer3, module.layer4):
        first = stage[0]
        assert isinstance(first, Bottleneck)
        first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
    module.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=True)
    return module


def _renamed(
    state: dict[str, Tensor], name_of: Callable[[str], str | None], source: str
) -> dict[str, Tensor]:
    names = {key: _split_name(key, name_of) for key in state}
    unknown = sorted(key for key, name in names.items() if name is None)
    if unknown:
        raise WeightsError(
            f"Expected the keys of the research code's network in {source}; found others besides: "
            f"{unknown}. Supply the state dict as it was published."
        )
    return {name: state[key] for key, name in names.items() if name is not None}


def _split_name(key: str, name_of: Callable[[str], str | None]) -> str | None:
    """Rename the layer of a tensor; None where the layer is unknown."""
    layer, _, tensor = key.rpartition(".")
    name = name_of(layer)
    return None if name is None else f"{name}.{tensor}"


def _vgg16_name(layer: str) -> str | None:
    linear = {"fc1.0": "classifier.0", "fc2.0": "classifier.3", "cls": "classifier.6"}
    if layer in linear:
        return linear[layer]
    match = re.fullmatch(r"conv\.(\d)\.conv(\d)", layer)
    if match is None:
        return None
    block, place = int(match[1]), int(match[2]) - 1
    if block >= len(_VGG_BLOCKS) or not 0 <= place < _VGG_BLOCKS[block]:
        return None
    # Each convolution is followed by its ReLU, each block by its pool.
    return f"features.{sum(2 * size + 1 for size in _VGG_BLOCKS[:block]) + 2 * place}"


def _resnet50_name(layer: str) -> str | None:
    stem = {"conv1_7x7_s2": "conv1", "conv1_7x7_s2_bn": "bn1", "classage": "fc"}
    if layer in stem:
        return stem[layer]
    match = _RESNET_STAGE.fullmatch(layer)
    if match is None:
        return None
    stage, block, part, norm = int(match[1]) - 1, int(match[2]) - 1, match[3], bool(match[4])
    place = f"layer{stage}.{block}"
    if part == "1x1_proj":
        return f"{place}.downsample.{int(norm)}"
    return f"{place}.{'bn' if norm else 'conv'}{_RESNET_PARTS[part]}"


def _with_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the batch counters that files of before PyTorch 0.4.1 lack; no reading needs them."""
    if any(key.endswith("num_batches_tracked") for key in state):
        return state
    counters = {
        f"{key.removesuffix('running_mean')}num_batches_tracked": torch.tensor(0)
        for key in state
        if key.endswith(".running_mean")
    }
    return counters | state
