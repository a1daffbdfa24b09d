"""From faces to the input of a network: resizing, and named normalisations.

Shapes: N images, C channels, H height, W width.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from agetf_pipeline.core.errors import ConfigError, DataError


@dataclass(frozen=True)
class Profile:
    """How pixel values become a network's input: `(x * scale - mean) / std`, x from 0 to 255.

    `mean` and `std` stand in the order of the channels that the network sees.
    """

    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


PROFILES: dict[str, Profile] = {
    # torchvision's and timm's convention.
    "imagenet": Profile(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # Pixel values as OpenCV reads them, unchanged: older ResNet50 age checkpoints expect this.
    "raw_bgr": Profile(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), bgr=True),
    # The research code's VGG16: ImageNet's mean and deviation, meant for RGB from 0 to 1, applied
    # by position to BGR from 0 to 255. Its weights were trained on this, so it is kept.
    "legacy_vgg_bgr": Profile(1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), bgr=True),
}
"""The normalisations by the name that cards and configs use."""


def profile_named(name: str) -> Profile:
    """Return a normalisation by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in PROFILES:
        raise ConfigError(
            f"Expected a preprocessing profile among {sorted(PROFILES)}; found {name!r}. "
            "Correct it in the config, or in the card of the weights."
        )
    return PROFILES[name]


_of_thread = threading.local()


@contextmanager
def shared_faces() -> Iterator[None]:
    """Within it, networks of one input size that read the same faces share their pixels.

    The last faces that `faces_to_tensor` made are given again, in this thread, for the same part of
    the same array: it must live, and not change, as long as the block runs, and nobody may write
    into the tensor.
    """
    before = getattr(_of_thread, "last", None)
    _of_thread.last = {}
    try:
        yield
    finally:
        _of_thread.last = before


def faces_to_tensor(faces_NHWC: np.ndarray, device: torch.device, input_px: int) -> Tensor:
    """Return faces as float32 (N, 3, input_px, input_px), RGB, 0 to 255, on `device`.

    Other sizes are resized with an antialiased bilinear filter, each image on its own.

    Args:
        faces_NHWC: uint8 (N, H, W, 3), RGB, square.
        device: Where the network is.
        input_px: Side of the network's input.

    Raises:
        DataError: The array has another shape or type.
    """
    shape = faces_NHWC.shape
    if faces_NHWC.dtype != np.uint8 or faces_NHWC.ndim != 4 or shape[3] != 3:
        raise DataError(
            "Expected faces as uint8 (N, H, W, 3); found "
            f"{faces_NHWC.dtype} {shape}. Read them with agetf_pipeline.data.images."
        )
    if shape[1] != shape[2]:
        raise DataError(
            f"Expected square faces; found {shape[1]} x {shape[2]}. Crop or align them first."
        )
    last: dict[tuple, Tensor] | None = getattr(_of_thread, "last", None)
    place = (faces_NHWC.ctypes.data, shape, faces_NHWC.strides, input_px, device)
    if last is not None and place in last:
        return last[place]
    x_NCHW = _resized(_to_device(faces_NHWC, device), input_px)
    if last is not None:
        last.clear()
        last[place] = x_NCHW
    return x_NCHW


def _to_device(faces_NHWC: np.ndarray, device: torch.device) -> Tensor:
    """Return the bytes as uint8 (N, 3, H, W); copied to a GPU while the caller goes on."""
    bytes_NHWC = torch.from_numpy(np.ascontiguousarray(faces_NHWC))
    if device.type == "cuda":
        bytes_NHWC = bytes_NHWC.pin_memory()
    return bytes_NHWC.to(device, non_blocking=True).permute(0, 3, 1, 2)


def _resized(bytes_NCHW: Tensor, input_px: int) -> Tensor:
    x_NCHW, shape = bytes_NCHW.float(), bytes_NCHW.shape
    if shape[0] and shape[2] != input_px:
        size = (input_px, input_px)
        x_NCHW = F.interpolate(x_NCHW, size=size, mode="bilinear", antialias=True).clamp(0, 255)
    return x_NCHW


def normalise(x_NCHW: Tensor, profile: Profile) -> Tensor:
    """Apply a profile to float RGB pixels from 0 to 255, (N, 3, H, W)."""
    if profile.bgr:
        x_NCHW = x_NCHW.flip(1)
    mean_C11 = x_NCHW.new_tensor(profile.mean)[:, None, None]
    std_C11 = x_NCHW.new_tensor(profile.std)[:, None, None]
    # In place from the second step on: the pixels may be shared, what is made of them is not.
    return (x_NCHW * profile.scale).sub_(mean_C11).div_(std_C11)
