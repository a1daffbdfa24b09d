"""The improved residual network as InsightFace publishes it for ArcFace (iresnet18 to iresnet100).

Layers and the names of tensors are those of the checkpoints of InsightFace's PyTorch training
(`backbone.pth`); the network is written from the papers and compared with the official one under
random weights (docs/golden_values.md). What was not compared: a checkpoint with learned weights.

It differs from AdaFace's (`evaluation.ir50`) in more than names: every stage begins with a
convolution beside its first block, and the last normalisation has a bias.

The network takes aligned faces of 112 x 112 pixels in [-1, 1], in RGB order.
Shapes: N images, C channels, H W image, D embedding.

Source: Deng et al., "ArcFace" (2019), section 3.1; He et al., "Identity mappings in deep residual
networks" (2016).
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import load_state, read_state

INPUT_PX = 112
EMBEDDING_DIM = 512
BLOCKS: dict[str, tuple[int, int, int, int]] = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}
"""Blocks of each stage, by the official name of the architecture."""

_WIDTHS = (64, 128, 256, 512)
_GRID = INPUT_PX // 16
_PREFIX = "module."


class ArcFaceBlock(nn.Module):
    """A residual block that normalises first; its second convolution may halve the image."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return features (N, C', H/stride, W/stride)."""
        h = self.prelu(self.bn2(self.conv1(self.bn1(x_NCHW))))
        return self.bn3(self.conv2(h)) + self.downsample(x_NCHW)


class ArcFaceNet(nn.Module):
    """Maps aligned faces to unit vectors."""

    def __init__(self, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        before = _WIDTHS[0]
        self.conv1 = nn.Conv2d(3, before, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.prelu = nn.PReLU(before)
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (width, num_blocks) in enumerate(zip(_WIDTHS, blocks, strict=True), start=1):
            stage = [ArcFaceBlock(before, width, 2)]
            stage += [ArcFaceBlock(width, width, 1) for _ in range(num_blocks - 1)]
            stages[f"layer{number}"] = nn.Sequential(*stage)
            before = width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages.values()
        self.bn2 = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before * _GRID**2, EMBEDDING_DIM)
        self.features = nn.BatchNorm1d(EMBEDDING_DIM)

    def forward(self, faces_NCHW: Tensor) -> Tensor:
        """Return unit embeddings (N, D) of faces (N, 3, 112, 112), RGB in [-1, 1]."""
        return nn.functional.normalize(self.unnormalised(faces_NCHW), dim=1)

    def unnormalised(self, faces_NCHW: Tensor) -> Tensor:
        """Return the embeddings as the official network gives them."""
        x = self.prelu(self.bn1(self.conv1(faces_NCHW)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


def to_rgb_input(faces_NHW3: Tensor) -> Tensor:
    """Return RGB faces, uint8 (N, 112, 112, 3), as the network's input, RGB in [-1, 1]."""
    return faces_NHW3.permute(0, 3, 1, 2).float() / 127.5 - 1


def is_arcface(state: Mapping[str, object]) -> bool:
    """Whether names of tensors are those of InsightFace's networks."""
    return any(name.removeprefix(_PREFIX).startswith("layer1.0.") for name in state)


def read_published(path: Path) -> tuple[ArcFaceNet, str]:
    """Build the network that a published ArcFace checkpoint holds, loaded strictly.

    Args:
        path: A PyTorch file or safetensors: the tensors of the backbone by themselves, or as
            `module.*` where several processes trained it.

    Returns:
        The network, on the CPU, and the official name of its architecture.

    Raises:
        WeightsError: Unreadable, of another architecture, or a tensor is missing or left over.
    """
    state = {name.removeprefix(_PREFIX): value for name, value in read_state(path).items()}
    found = tuple(_num_blocks(state, f"layer{number}.") for number in range(1, 5))
    architecture = next((name for name, blocks in BLOCKS.items() if blocks == found), None)
    if architecture is None:
        known = ", ".join(f"{name} {blocks}" for name, blocks in BLOCKS.items())
        raise WeightsError(
            f"Expected the weights of an ArcFace network at {path}, with blocks in its stages as "
            f"one of {known}; found {found} named layer1.* to layer4.*. Supply the backbone.pth of "
            "InsightFace's PyTorch training, an AdaFace checkpoint, or an identity embedder of "
            "this project."
        )
    module = build_published(architecture)
    load_state(module, state, str(path))
    return module, architecture


def build_published(architecture: str) -> ArcFaceNet:
    """Return a network of a named architecture on the CPU, its weights not yet set.

    Raises:
        WeightsError: There is no such architecture.
    """
    if architecture not in BLOCKS:
        raise WeightsError(
            f"Expected an ArcFace architecture among {', '.join(BLOCKS)}; found {architecture!r}. "
            "Supply the checkpoint again."
        )
    with torch.device("meta"):
        module = ArcFaceNet(BLOCKS[architecture])
    return module.to_empty(device="cpu")


def _num_blocks(state: Mapping[str, object], prefix: str) -> int:
    places = [name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)]
    return 1 + max((int(place) for place in places if place.isdigit()), default=-1)
