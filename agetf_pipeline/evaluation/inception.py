"""The features that FID and KID mean: InceptionV3 of 2015, from a local file and nowhere else.

The network is torchmetrics' (torch-fidelity's port of the original), so that the figures are those
that everybody else reports. Its weights are a file of the user's; without it there is neither FID
nor KID: no other network takes their names. Shapes: N images, H W their sides, D = 2048 features.

Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium"; weights of torch-fidelity (Obukhov et al. 2020).
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.core.errors import WeightsError

if TYPE_CHECKING:
    import torch

NUM_FEATURES = 2048
_MIN_BATCH, _MAX_BATCH = 1, 32
# What 32 images of 512 px take; larger ones come in smaller batches.
_MAX_PIXELS = 32 * 512 * 512
_FILE = (
    "the file weights-inception-2015-12-05-6726825d.pth (or its tensors as safetensors; `agetf "
    "models fetch inception-fid` gets it), named by evaluate.inception_weights"
)


@dataclass(frozen=True)
class Inception:
    """InceptionV3 at work; a `panel.FeatureExtractor`.

    Attributes:
        module: torchmetrics' network, frozen, in evaluation mode.
        device: Where it runs.
    """

    module: "torch.nn.Module"
    device: "torch.device"

    def features(self, images_NHWC: np.ndarray) -> np.ndarray:
        """Return the pooled features, float32 (N, 2048), of uint8 RGB images of any side.

        Images are resized to 299 px as torchmetrics does by default: bilinearly with antialiasing,
        which for images that have to shrink differs from what TensorFlow did in 2017.
        """
        import torch

        if images_NHWC.dtype != np.uint8:
            raise TypeError(f"Expected uint8 images; found {images_NHWC.dtype}. Round them first.")
        if not len(images_NHWC):
            return np.empty((0, NUM_FEATURES), np.float32)
        height, width = images_NHWC.shape[1:3]
        size = min(_MAX_BATCH, max(_MIN_BATCH, _MAX_PIXELS // (height * width)))

        def features(rows: slice) -> np.ndarray:
            batch = np.ascontiguousarray(images_NHWC[rows])
            x_NCHW = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2)
            return self.module(x_NCHW).float().cpu().numpy()

        work = Work(f"Inception's features of {width} x {height} px")
        with torch.inference_mode():
            parts = in_batches(features, len(images_NHWC), size, work)
            return np.concatenate([part for _, part in parts])


def load_inception(path: Path, device: "torch.device") -> Inception:
    """Load InceptionV3 as FID uses it; verify the file before.

    Args:
        path: The published `weights-inception-2015-12-05-6726825d.pth` (also under the name
            `pt_inception-2015-12-05-6726825d.pth`), or its tensors as safetensors.
        device: Where it will run.

    Raises:
        WeightsError: The file is absent, unreadable, or of another network.
    """
    from agetf_pipeline.core.weights import read_state

    module = _network(read_state(path), path)
    return Inception(module.eval().requires_grad_(False).to(device), device)


def _network(state: Mapping[str, "torch.Tensor"], path: Path) -> "torch.nn.Module":
    """Return the network with the state loaded strictly.

    Its constructor reads a file itself, running whatever code that holds. It is given the tensors
    that were read without any, in memory, and therefore never downloads either.
    """
    import torch
    from torchmetrics.image.fid import NoTrainInceptionV3

    tensors = io.BytesIO()
    torch.save(dict(state), tensors)
    tensors.seek(0)
    try:
        return NoTrainInceptionV3(
            "inception-v3-compat",
            [str(NUM_FEATURES)],
            tensors,  # type: ignore[arg-type]
        )
    except RuntimeError as error:
        raise WeightsError(
            f"Expected the weights of FID's InceptionV3 at {path}; found those of another network: "
            f"{error}. torchvision's Inception is another one, too. Supply {_FILE}."
        ) from error
