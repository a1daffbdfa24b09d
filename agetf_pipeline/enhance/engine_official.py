"""`engine: realesrgan`: the official one-image loop behind our interface, as an oracle.

RealESRGANer prints while it works, and where a tile runs out of memory it prints the error and
pastes the tile before it. Here it is silent, and an error is an error.
"""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agetf_pipeline.core.errors import StageError
from agetf_pipeline.enhance.basicsr_compat import realesrganer_class
from agetf_pipeline.enhance.esrgan import SuperResolver


class _Outspoken(nn.Module):
    """A network whose failure RealESRGANer, which catches RuntimeError alone, cannot swallow."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.network(x)
        except RuntimeError as error:
            raise StageError(
                f"Expected RealESRGANer to super-resolve a tile of {tuple(x.shape[2:])} px; the "
                f"network failed: {error}. If memory ran out, lower enhance.tile_px."
            ) from error


class OfficialSuperResolver:
    """RealESRGANer with the interface of `SuperResolver`.

    Attributes:
        network: In evaluation mode, on its device.
        scale: Of the network.
        version: `<sha256[:12]>-<code version>-realesrgan`.
    """

    def __init__(self, own: SuperResolver) -> None:
        """Wrap a loaded network.

        Args:
            own: In fp32. Its network is shared; its halo becomes RealESRGANer's `tile_pad`.
        """
        network, device = own.network, own.device
        self.network, self.scale, self.version = network, own.scale, f"{own.version}-realesrgan"
        # It insists on a file of its own, in the published layout.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.pth"
            torch.save({"params": network.state_dict()}, path)
            self._official: Any = realesrganer_class()(
                own.scale, str(path), model=network, tile_pad=own.halo_px, pre_pad=0, device=device
            )
        self._official.model = _Outspoken(network)

    def __call__(self, rgb_NHW3: np.ndarray, tile_px: int, batch_size: int = 1) -> np.ndarray:
        """Super-resolve images of one size, one at a time; see `SuperResolver.__call__`."""
        del batch_size
        whole = max(rgb_NHW3.shape[1:3]) <= tile_px
        self._official.tile_size = 0 if whole else tile_px
        outputs = []
        for image in rgb_NHW3:
            bgr = np.ascontiguousarray(image[:, :, ::-1])
            with contextlib.redirect_stdout(io.StringIO()):
                enhanced, _ = self._official.enhance(bgr)
            outputs.append(enhanced[:, :, ::-1])
        return np.stack(outputs)
