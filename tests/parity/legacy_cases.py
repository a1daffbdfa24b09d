"""The research code's two networks: names and shapes of their tensors, their weights, and what
they compute, as plain functions of those tensors.

Written from the description of the layouts, to have something to compare with that shares nothing
with our modules: no name mapping, no torchvision.

Shapes: N images, C channels, H height, W width.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from seeded_arrays import seeded_picture, unit_noise
from torch import Tensor
from torch.nn import functional as F

NUM_PICTURES = 3
_PERIOD = 99_991
_BLOCKS = {2: (3, 64, 256), 3: (4, 128, 512), 4: (6, 256, 1024), 5: (3, 512, 2048)}
_VGG = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512,) * 4)
GAINS = {
    "conv.0.conv1.weight": 1 / 300, "cls.weight": 0.5,
    "conv1_7x7_s2.weight": 1 / 100, "classage.weight": 0.0006,
}  # fmt: skip
"""Scales of first layers and heads: ages lie years apart, and no softmax is one-hot."""


def vgg16_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the research code's VGG16."""
    shapes: dict[str, tuple[int, ...]] = {}
    for block, widths in enumerate(_VGG):
        for place, (before, after) in enumerate(pairwise(widths), start=1):
            shapes[f"conv.{block}.conv{place}.weight"] = (after, before, 3, 3)
            shapes[f"conv.{block}.conv{place}.bias"] = (after,)
    for name, (after, before) in {
        "fc1.0": (4096, 25088), "fc2.0": (4096, 4096), "cls": (101, 4096)
    }.items():  # fmt: skip
        shapes |= {f"{name}.weight": (after, before), f"{name}.bias": (after,)}
    return shapes


def resnet50_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the research code's ResNet50, without VGGFace2's identities."""
    shapes = _with_norm("conv1_7x7_s2", (64, 3, 7, 7))
    before = 64
    for stage, (num_blocks, inside, outside) in _BLOCKS.items():
        for block in range(1, num_blocks + 1):
            name = f"conv{stage}_{block}"
            shapes |= _with_norm(f"{name}_1x1_reduce", (inside, before, 1, 1))
            shapes |= _with_norm(f"{name}_3x3", (inside, inside, 3, 3))
            shapes |= _with_norm(f"{name}_1x1_increase", (outside, inside, 1, 1))
            if block == 1:
                shapes |= _with_norm(f"{name}_1x1_proj", (outside, before, 1, 1))
            before = outside
    return shapes | {"classage.weight": (101, 2048, 1, 1), "classage.bias": (101,)}


def _with_norm(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    shapes = {f"{name}.weight": shape} | {f"{name}_bn.{part}": shape[:1] for part in parts}
    return shapes | {f"{name}_bn.num_batches_tracked": ()}


def seeded_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return weights drawn from the names of the tensors, the same on every machine.

    Each tensor repeats 99,991 numbers of variance 1 (a prime: rows differ), scaled: kernels by
    sqrt(2 / fan-in), running variances exp(0.2 x), gains 1 + 0.2 x, biases and running means 0.1 x;
    first layers and heads further, by `GAINS`.
    """
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        size = int(np.prod(shape))
        noise = unit_noise(name, (min(size, _PERIOD),)).astype(np.float32)
        if len(shape) > 1:
            noise *= np.float32(GAINS.get(name, 1.0) * np.sqrt(2 / np.prod(shape[1:])))
        elif name.endswith("running_var"):
            noise = np.exp(0.2 * noise)
        elif name.endswith(".weight"):
            noise = 1 + 0.2 * noise
        else:
            noise *= 0.1
        state[name] = torch.from_numpy(np.resize(noise, shape))
    return state


def pictures() -> np.ndarray:
    """Faces, uint8 (N, 224, 224, 3) RGB."""
    return np.stack([seeded_picture(f"legacy {i}", 224, 224) for i in range(NUM_PICTURES)])


def vgg16_logits(state: Mapping[str, Tensor], faces_NHWC: np.ndarray) -> Tensor:
    """Logits of the research code's VGG16: BGR 0..255, minus 0.485, over 0.229, by position."""
    x = _bgr(faces_NHWC)
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    for block, widths in enumerate(_VGG):
        for place in range(1, len(widths)):
            name = f"conv.{block}.conv{place}"
            x = F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
        x = F.max_pool2d(x, 2, 2)
    x = x.flatten(1)
    for name in ("fc1.0", "fc2.0"):
        x = F.relu(F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"]))
    return F.linear(x, state["cls.weight"], state["cls.bias"])


def resnet50_logits(state: Mapping[str, Tensor], faces_NHWC: np.ndarray) -> Tensor:
    """Logits of the research code's ResNet50: BGR 0..255 as it is."""

    def conv_norm(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        x = F.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}_bn.{part}"] for part in parts), eps=1e-5)

    x = F.relu(conv_norm(_bgr(faces_NHWC), "conv1_7x7_s2", 2, 3))
    x = F.max_pool2d(x, 3, 2, padding=0, ceil_mode=True)
    for stage, (num_blocks, _, _) in _BLOCKS.items():
        for block in range(1, num_blocks + 1):
            name = f"conv{stage}_{block}"
            stride = 2 if block == 1 and stage > 2 else 1
            inner = F.relu(conv_norm(x, f"{name}_1x1_reduce", stride))
            inner = F.relu(conv_norm(inner, f"{name}_3x3", padding=1))
            inner = conv_norm(inner, f"{name}_1x1_increase")
            around = conv_norm(x, f"{name}_1x1_proj", stride) if block == 1 else x
            x = F.relu(inner + around)
    x = F.avg_pool2d(x, 7, 1)
    return F.conv2d(x, state["classage.weight"], state["classage.bias"]).flatten(1)


def expected_ages(logits_NA: Tensor) -> np.ndarray:
    """Softmax expectation over 0..100, float32 (N,)."""
    return (logits_NA.softmax(1) * torch.arange(101.0)).sum(1).numpy()


def _bgr(faces_NHWC: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(faces_NHWC[..., ::-1])).permute(0, 3, 1, 2).float()
