"""LPIPS of finished images: uint8 in, one distance a pair out.

The network is the one of training's loss, with AlexNet's published weights from a local file; it
reads, and is not trained, in both places. Shapes: N pairs, H W the side of an image.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agetf_pipeline.core.batches import Work, in_batches

if TYPE_CHECKING:
    import torch

    from agetf_pipeline.age_transformer.lpips import Lpips

_BATCH = 16
_MIN_PX = 32


@dataclass(frozen=True)
class LpipsDistance:
    """LPIPS at work; a `panel.PairDistance`.

    Attributes:
        module: The network, frozen, in evaluation mode.
        device: Where it runs.
    """

    module: "Lpips"
    device: "torch.device"

    def distances(self, images_NHWC: np.ndarray, references_NHWC: np.ndarray) -> np.ndarray:
        """Return LPIPS of each pair, float64 (N,), 0 for equal images.

        Args:
            images_NHWC: uint8 RGB, 32 px or more.
            references_NHWC: What they are compared with, of the same shape.

        Raises:
            ValueError: The shapes differ, or the images are too small for AlexNet.
        """
        import torch

        if images_NHWC.shape != references_NHWC.shape or min(images_NHWC.shape[1:3]) < _MIN_PX:
            raise ValueError(
                f"Expected pairs of one shape, {_MIN_PX} px or more; found {images_NHWC.shape} and "
                f"{references_NHWC.shape}. Resize one to the other."
            )

        def compare(rows: slice) -> np.ndarray:
            x_NCHW, y_NCHW = (self._to_input(part[rows]) for part in (images_NHWC, references_NHWC))
            return self.module(x_NCHW, y_NCHW).double().cpu().numpy()

        with torch.inference_mode():
            parts = in_batches(compare, len(images_NHWC), _BATCH, Work("LPIPS"))
            return np.concatenate([np.empty(0), *(part for _, part in parts)])

    def _to_input(self, images_NHWC: np.ndarray) -> "torch.Tensor":
        """Return uint8 images as floats of -1 to 1, (N, 3, H, W)."""
        import torch

        x_NHWC = torch.from_numpy(np.ascontiguousarray(images_NHWC)).to(self.device)
        return x_NHWC.permute(0, 3, 1, 2).float() / 127.5 - 1


def load_lpips_distance(path: Path, device: "torch.device") -> LpipsDistance:
    """Load LPIPS.

    Args:
        path: torchvision's `alexnet-owt-7be5be79.pth`, or its tensors as safetensors.
        device: Where it will run.

    Raises:
        WeightsError: The file is absent, unreadable, or of another network.
    """
    from agetf_pipeline.age_transformer.lpips import load_lpips

    return LpipsDistance(load_lpips(path).to(device), device)
