"""Colouring a picture: its own lightness at full size, predicted colour laid over it.

Lab is OpenCV's of float images: L 0 to 100, a and b about -127 to 127, D65, from sRGB.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import load_state, read_state
from agetf_pipeline.enhance.ddcolor import DOWNSAMPLING, SIZES, DDColor, from_published
from agetf_pipeline.enhance.engine import Precision, inference, map_batches, tag
from agetf_pipeline.enhance.fast_ddcolor import FastDDColor

CODE_VERSION = "2"
_WORK = Work("colouring", "enhance.batch_size")
_BYTES_PER_PX = 2000
"""Bound on what a picture takes for each pixel of the network's input. Measured on a CPU, fp32: the
published large network 1,504 at 256 px and 720 at 512, tiny 729; in bf16 a third to a half less."""


def to_lab(rgb_HW3: np.ndarray) -> np.ndarray:
    """Return float32 Lab of a uint8 or float (0 to 1) RGB image."""
    scaled = rgb_HW3.astype(np.float32) / 255 if rgb_HW3.dtype == np.uint8 else rgb_HW3
    return cv2.cvtColor(np.ascontiguousarray(scaled, np.float32), cv2.COLOR_RGB2Lab)


def to_rgb(lab_HW3: np.ndarray) -> np.ndarray:
    """Return uint8 RGB of float32 Lab; colours outside sRGB are clipped."""
    rgb = cv2.cvtColor(np.ascontiguousarray(lab_HW3, np.float32), cv2.COLOR_Lab2RGB)
    return (rgb.clip(0, 1) * 255).round().astype(np.uint8)


def grey_input(rgb_HW3: np.ndarray, input_px: int) -> np.ndarray:
    """Return what the network sees: the picture at its size without colour, float32 RGB 0 to 1.

    Source: the published pipeline (bilinear resize, then L alone back to RGB).
    """
    small = cv2.resize(rgb_HW3.astype(np.float32) / 255, (input_px, input_px))
    lab = to_lab(small)
    lab[:, :, 1:] = 0
    return cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)


def join_colour(rgb_HW3: np.ndarray, ab_2hw: np.ndarray) -> np.ndarray:
    """Lay predicted colour over a picture's own lightness.

    Args:
        rgb_HW3: uint8, the picture; only its lightness is used.
        ab_2hw: float32, the network's answer, at the network's size.

    Returns:
        uint8 (H, W, 3).
    """
    height, width = rgb_HW3.shape[:2]
    # Nearest, as published: any other interpolation differs from it by up to 7/255.
    ab = F.interpolate(torch.from_numpy(ab_2hw)[None], size=(height, width))[0].numpy()
    return to_rgb(np.concatenate([to_lab(rgb_HW3)[:, :, :1], ab.transpose(1, 2, 0)], axis=2))


@dataclass(frozen=True)
class Colouriser:
    """A trained DDColor, ready for images.

    Attributes:
        network: In evaluation mode, on its device; float (N, 3, H, W) to (N, 2, H, W).
        input_px: Side of what it sees.
        version: `<sha256[:12]>-<code version>@<input_px>`, and `-bf16` in that precision.
        precision: bf16 is autocast over fp32 weights.
    """

    network: nn.Module
    input_px: int
    version: str
    precision: Precision = "fp32"

    @property
    def picture_mib(self) -> float:
        """Bound on what colouring one picture takes beside the picture itself."""
        return _BYTES_PER_PX * self.input_px**2 / 2**20

    def __call__(self, images: list[np.ndarray], batch_size: int = 4) -> list[np.ndarray]:
        """Colour pictures, uint8 (H, W, 3) of any sizes; the results have the same sizes."""
        device = next(self.network.parameters()).device
        batches = [images[at : at + batch_size] for at in range(0, len(images), batch_size)]

        def colour(batch: list[np.ndarray]) -> list[np.ndarray]:
            grey = np.stack([grey_input(image, self.input_px) for image in batch])
            # Channels last as they are: the network is laid out so too.
            x_N3HW = torch.from_numpy(grey).permute(0, 3, 1, 2).to(device)
            with inference(self.precision, device):
                ab = self.network(x_N3HW).float().cpu().numpy()
            return [join_colour(*pair) for pair in zip(batch, ab, strict=True)]

        def run(batch: list[np.ndarray]) -> list[np.ndarray]:
            parts = in_batches(lambda rows: colour(batch[rows]), len(batch), batch_size, _WORK)
            return [image for _, part in parts for image in part]

        return [image for coloured in map_batches(run, batches, device) for image in coloured]


def load_ddcolor(
    path: Path,
    size: str,
    input_px: int,
    device: "torch.device | str" = "cpu",
    precision: Precision = "fp32",
) -> Colouriser:
    """Load weights strictly: a published checkpoint (`params`), or our own safetensors.

    Args:
        path: The weights.
        size: A key of `ddcolor.SIZES`.
        input_px: Side of what the network sees.
        device: Where it runs.
        precision: What it computes in; see `engine.choose_precision`.

    Raises:
        WeightsError: The file is absent, or does not fit the architecture.
        ConfigError: The input size is not a multiple of 32.
    """
    if input_px % DOWNSAMPLING:
        raise ConfigError(
            f"Expected train_enhancers.ddcolor.input_px in multiples of {DOWNSAMPLING}; "
            f"found {input_px}."
        )
    state = read_state(path)
    inner = state.get("params")
    network = DDColor(SIZES[size])
    load_state(network, from_published(inner if isinstance(inner, dict) else state), str(path))
    fast = FastDDColor(network.eval()).to(device)
    fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    version = f"{hash_file(path)[:12]}-{CODE_VERSION}@{input_px}{tag(precision)}"
    return Colouriser(fast, input_px, version, precision)
