"""`engine: realesrgan`: the official one-image loop behind our interface, as an oracle.

RealESRGANer prints while it works, and where a tile runs out of memory it prints the error and
pastes the tile before it. Here it is silent, an error is an error, and tiles that do not fit the
memory are made smaller.
"""

import contextlib
import io
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agetf_pipeline.core.batches import (
    Work,
    is_out_of_memory,
    release_memory,
    too_little_memory,
)
from agetf_pipeline.core.devices import is_device_lost, lost_device
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.enhance.basicsr_compat import realesrganer_class
from agetf_pipeline.enhance.esrgan import SuperResolver

_LOGGER = logging.getLogger(__name__)
_LEAST_PX = 16
_WORK = Work("enlarging a tile with RealESRGANer", remedy="Lower enhance.tile_px.")


class _Outspoken(nn.Module):
    """A network whose failure RealESRGANer, which catches RuntimeError alone, cannot swallow."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.network(x)
        except RuntimeError as error:
            if is_device_lost(error):
                raise lost_device(error) from error
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise StageError(
                f"Expected RealESRGANer to super-resolve a tile of {tuple(x.shape[2:])} px; the "
                f"network failed: {error}. See that the weights are of the network that "
                "enhance.esrgan names."
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
        self._fitting_px: int | None = None

    def __call__(self, rgb_NHW3: np.ndarray, tile_px: int, batch_size: int = 1) -> np.ndarray:
        """Super-resolve images of one size, one at a time; see `SuperResolver.__call__`.

        Raises:
            StageError: The network failed, or the memory does not hold a tile of 16 px.
            DeviceLostError: The GPU is gone.
        """
        del batch_size
        return np.stack([self._fitting(image, tile_px) for image in rgb_NHW3])

    def num_at_once(
        self, height: int, width: int, tile_px: int, batch_size: int, num_calls: int
    ) -> int:
        """Return 0, always: RealESRGANer keeps its picture in itself, and takes one at a time."""
        del height, width, tile_px, batch_size, num_calls
        return 0

    def _fitting(self, rgb_HW3: np.ndarray, tile_px: int) -> np.ndarray:
        """Super-resolve an image, in smaller tiles where the memory does not hold these."""
        side_px = max(rgb_HW3.shape[:2])
        while True:
            size_px = min(side_px, tile_px, self._fitting_px or tile_px)
            try:
                return self._enhance(rgb_HW3, 0 if size_px == side_px else size_px)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if size_px <= _LEAST_PX:
                    raise too_little_memory(error, _WORK) from error
                reason = str(error)
            # Outside of the handler, whose traceback keeps the tensors of the attempt alive.
            release_memory()
            self._fitting_px = max(_LEAST_PX, -(-size_px // 2))
            _LOGGER.warning(
                "RealESRGANer: a tile of %d px does not fit the memory (%s); going on with %d. "
                "Set enhance.tile_px to it to be spared the attempt.",
                size_px, reason, self._fitting_px,
            )  # fmt: skip

    def _enhance(self, rgb_HW3: np.ndarray, tile_px: int) -> np.ndarray:
        self._official.tile_size = tile_px
        bgr = np.ascontiguousarray(rgb_HW3[:, :, ::-1])
        with contextlib.redirect_stdout(io.StringIO()):
            enhanced, _ = self._official.enhance(bgr)
        return enhanced[:, :, ::-1]
