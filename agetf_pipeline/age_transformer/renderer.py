"""Rendering with saved weights: faces in, the same faces at any ages out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agetf_pipeline.age_transformer.embedding import MAX_AGE_YEARS
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.sizes import ModelSettings
from agetf_pipeline.core.devices import resolve_device
from agetf_pipeline.core.errors import DataError, WeightsError
from agetf_pipeline.core.weights import load_state, read_card, read_state

if TYPE_CHECKING:
    import torch

KIND = "age_transformer"


class Renderer:
    """A trained AgeTransformer, ready to render. Same input, same bytes.

    Attributes:
        model: The network, in evaluation mode.
        card: What the weights' file says of itself (`trained_on`, `run_name`, ...).
        size_px: Side of the faces it takes and gives.
    """

    def __init__(
        self, model: AgeTransformer, device: "torch.device | str" = "cpu", card: dict | None = None
    ) -> None:
        import torch

        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.card = card or {}
        self.size_px = model.settings.size_px

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> "Renderer":
        """Rebuild the model that a weights file holds.

        Args:
            path: `weights.safetensors` of a training run.
            device: As in `runtime.device`: `cpu`, `cuda`, `auto`.

        Raises:
            WeightsError: The file is absent, or is not that of an AgeTransformer.
        """
        card = read_card(path)
        if card.get("kind") != KIND:
            raise WeightsError(
                f"Expected the weights of an AgeTransformer at {path}; found "
                f"{card.get('kind', 'no card')}. Give models/age_transformer/<run>/"
                "weights.safetensors of a training run."
            )
        model = AgeTransformer(ModelSettings.from_card(card["model"]))
        load_state(model, read_state(path), str(path))
        return cls(model, resolve_device(device), card)

    def render(
        self, faces_NHWC: np.ndarray, ages_years: Sequence[float], batch_size: int | None = None
    ) -> np.ndarray:
        """Render every face at every age, each face encoded once.

        Args:
            faces_NHWC: uint8 (N, S, S, 3), RGB, aligned faces of the model's size.
            ages_years: Ages to render, 0 to 100; anchors or not.
            batch_size: Faces per pass. By default one on the CPU (there it is as fast, and a face
                gives the same bytes whatever faces are beside it), and sixteen on a GPU.

        Returns:
            uint8 (N, A, S, S, 3).

        Raises:
            DataError: Faces of another type, size or shape, or an age outside 0 to 100.
        """
        import torch

        self._check(faces_NHWC, ages_years)
        N, A, S = len(faces_NHWC), len(ages_years), self.size_px
        renderings = np.empty((N, A, S, S, 3), np.uint8)
        batch = batch_size or (1 if self.device.type == "cpu" else 16)
        ages = torch.tensor(list(ages_years), dtype=torch.float32, device=self.device)
        with torch.inference_mode():
            for start in range(0, N, batch):
                faces = to_tensor(faces_NHWC[start : start + batch]).to(self.device)
                rendered = self.model(faces, ages.expand(len(faces), A))
                renderings[start : start + batch] = to_uint8(rendered.image)
        return renderings

    def _check(self, faces_NHWC: np.ndarray, ages_years: Sequence[float]) -> None:
        shape = (self.size_px, self.size_px, 3)
        if faces_NHWC.dtype != np.uint8 or faces_NHWC.ndim != 4 or faces_NHWC.shape[1:] != shape:
            raise DataError(
                f"Expected faces as uint8 (N, {shape[0]}, {shape[1]}, 3); found "
                f"{faces_NHWC.dtype} {faces_NHWC.shape}. Align and resize the faces first."
            )
        wrong = [age for age in ages_years if not 0 <= age <= MAX_AGE_YEARS]
        if wrong or not len(ages_years):
            raise DataError(
                f"Expected one age or more, from 0 to 100 years; found {wrong or 'none'}. "
                "Give ages such as 5 33 80."
            )


def to_tensor(faces_NHWC: np.ndarray) -> "torch.Tensor":
    """Return uint8 faces (N, S, S, 3) as float32 (N, 3, S, S), -1 to 1."""
    import torch

    return torch.from_numpy(np.array(faces_NHWC)).permute(0, 3, 1, 2) / 127.5 - 1


def to_uint8(images: "torch.Tensor") -> np.ndarray:
    """Return images (..., 3, S, S), -1 to 1, as uint8 (..., S, S, 3)."""
    import torch

    values = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return values.movedim(-3, -1).cpu().numpy()
