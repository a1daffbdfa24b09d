"""The improved residual network (IR) that AdaFace and ArcFace publish identity embeddings with.

Layers and the names of tensors are those of the official AdaFace checkpoints (ir_18, ir_34, ir_50,
ir_101); the network is written from the papers and compared with the official one under random
weights (docs/golden_values.md). What was not compared: a checkpoint with learned weights.

The network takes aligned faces of 112 x 112 pixels in [-1, 1], in BGR order (AdaFace).
Shapes: N images, C channels, H W image, D embedding.

Source: Deng et al., "ArcFace" (2019), section 3.1 (IR blocks, BN-Dropout-FC-BN); He et al.,
"Identity mappings in deep residual networks" (2016); Kim et al., "AdaFace" (2022).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import load_state, read_state

INPUT_PX = 112
EMBEDDING_DIM = 512
BLOCKS: dict[str, tuple[int, int, int, int]] = {
    "ir_18": (2, 2, 2, 2),
    "ir_34": (3, 4, 6, 3),
    "ir_50": (3, 4, 14, 3),
    "ir_101": (3, 13, 30, 3),
}
"""Blocks of each stage, by the official name of the architecture."""

_WIDTHS = (64, 128, 256, 512)
_GRID = INPUT_PX // 16
_PREFIX = "model."
_NOT_OF_THE_NETWORK = "head."


class IRBlock(nn.Module):
    """A residual block that normalises first and halves the image in its second convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)  # takes every stride-th pixel: nothing to learn
            if in_channels == out_channels
            else nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return features (N, C', H/stride, W/stride)."""
        return self.shortcut_layer(x_NCHW) + self.res_layer(x_NCHW)


class IRNet(nn.Module):
    """Maps aligned faces to unit vectors."""

    def __init__(self, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        first = _WIDTHS[0]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.PReLU(first)
        )
        body, before = [], first
        for width, num_blocks in zip(_WIDTHS, blocks, strict=True):
            for place in range(num_blocks):
                body.append(IRBlock(before, width, 1 if place else 2))
                before = width
        self.body = nn.Sequential(*body)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(before * _GRID**2, EMBEDDING_DIM),
            nn.BatchNorm1d(EMBEDDING_DIM, affine=False),
        )

    def forward(self, faces_NCHW: Tensor) -> Tensor:
        """Return unit embeddings (N, D) of faces (N, 3, 112, 112), BGR in [-1, 1]."""
        return nn.functional.normalize(self.unnormalised(faces_NCHW), dim=1)

    def unnormalised(self, faces_NCHW: Tensor) -> Tensor:
        """Return embeddings whose length says how well a face can be recognised (AdaFace)."""
        return self.output_layer(self.body(self.input_layer(faces_NCHW)))


def to_bgr_input(faces_NHW3: "Tensor") -> Tensor:
    """Return RGB faces, uint8 (N, 112, 112, 3), as the network's input, BGR in [-1, 1]."""
    return faces_NHW3.flip(-1).permute(0, 3, 1, 2).float() / 127.5 - 1


def read_published(path: Path) -> tuple[IRNet, str]:
    """Build the network that a published AdaFace checkpoint holds, loaded strictly.

    Args:
        path: A PyTorch file or safetensors: the tensors of the network, as `model.*` beside those
            of the training head (`head.*`, skipped), in `state_dict` or by themselves.

    Returns:
        The network, on the CPU, and the official name of its architecture.

    Raises:
        WeightsError: Unreadable, of another architecture, or a tensor is missing or left over.
    """
    state = network_state(read_state(path))
    num_blocks = 1 + max((_block_of(name) for name in state), default=-1)
    names = {sum(blocks): name for name, blocks in BLOCKS.items()}
    if num_blocks not in names:
        known = ", ".join(f"{name} ({count})" for count, name in names.items())
        raise WeightsError(
            f"Expected the weights of an IR network at {path}, with blocks in number as one of "
            f"{known}; found {num_blocks} blocks named body.*. Supply an AdaFace checkpoint, such "
            "as adaface-ir50 (`agetf models list`), or an identity embedder of this project."
        )
    module = build_published(names[num_blocks])
    load_state(module, state, str(path))
    return module, names[num_blocks]


def build_published(architecture: str) -> IRNet:
    """Return a network of a named architecture on the CPU, its weights not yet set.

    Raises:
        WeightsError: There is no such architecture.
    """
    if architecture not in BLOCKS:
        raise WeightsError(
            f"Expected an AdaFace architecture among {', '.join(BLOCKS)}; found {architecture!r}. "
            "Supply the checkpoint again."
        )
    with torch.device("meta"):
        module = IRNet(BLOCKS[architecture])
    return module.to_empty(device="cpu")


def network_state(checkpoint: Mapping) -> dict[str, Tensor]:
    """Return the network's tensors of a checkpoint by their own names, the head's left out."""
    state = checkpoint.get("state_dict", checkpoint)
    return {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in state.items()
        if not name.startswith(_NOT_OF_THE_NETWORK)
    }


def _block_of(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "body" and len(parts) > 1 and parts[1].isdigit() else -1
