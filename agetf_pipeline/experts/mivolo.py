"""MiVOLO: age and gender from a face, and a body where there is one, by a Vision Outlooker.

The parts: `mivolo_network` (the network), `mivolo_twin` (its patch embedding of face and body),
`mivolo_input` (how pictures enter published weights), `mivolo_published` (reading those weights),
`mivolo_training` (what ours learn from). This file makes an age expert of them.

Source: Kuprashevich and Tolstykh, "MiVOLO: Multi-input Transformer for Age and Gender Estimation",
2023.

Shapes: N images, V views of an image, C channels (3: faces, 6: faces and bodies).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import ConfigError, DataError
from agetf_pipeline.core.hashing import hash_file, hash_folder
from agetf_pipeline.core.weights import load_state, read_state
from agetf_pipeline.experts.base import Readings
from agetf_pipeline.experts.heads import MIN_SIGMA_YEARS
from agetf_pipeline.experts.kinds import Trainer
from agetf_pipeline.experts.mivolo_input import (
    PROFILE,
    PUBLISHED_FACE_CROP,
    central_crop,
    letterboxed,
)
from agetf_pipeline.experts.mivolo_network import LAYOUTS, AgeRange, Layout, MiVOLO, build_volo
from agetf_pipeline.experts.mivolo_published import read_published, read_published_folder
from agetf_pipeline.experts.mivolo_training import AUGMENTATION, mivolo_loss
from agetf_pipeline.experts.own_weights import own_card
from agetf_pipeline.experts.preprocess import PROFILES, faces_to_tensor, normalise

__all__ = [
    "CODE_VERSION",
    "LAYOUTS",
    "PROFILE",
    "TRAINER",
    "AgeRange",
    "Layout",
    "MiVOLO",
    "MiVOLOExpert",
    "build_volo",
    "load_expert",
    "read_published",
    "read_published_folder",
]

CODE_VERSION = "2"

TRAINER = Trainer(
    build=lambda expert, mean_age: MiVOLO(
        expert.size, expert.input_px, AgeRange(average_years=mean_age)
    ),
    loss=mivolo_loss,
    augmentation=AUGMENTATION,
    profile=PROFILE,
    ages=lambda module, x_NCHW: module(x_NCHW)[0],
)


class MiVOLOExpert:
    """MiVOLO as an age expert.

    Attributes:
        bf16_tag: What its version says of a reading in bfloat16, whose arithmetic is in its second
            form: the projection of the patches and the last layers compute in float32.
    """

    bf16_tag = "-bf16.2"

    def __init__(
        self,
        module: MiVOLO,
        input_px: int,
        version: str,
        trained_on: str,
        *,
        name: str = "mivolo",
        published: bool = False,
        face_crop: float = 1.0,
    ) -> None:
        """Wrap a network.

        Args:
            module: The network, with whatever weights.
            input_px: Side of its input.
            version: Hash of the weights and version of the code.
            trained_on: What the weights learned from.
            name: The expert's name in tables.
            published: Prepare faces as the published weights had them (`mivolo_input`); otherwise
                as ours have them, resized with antialiasing.
            face_crop: Central part of an aligned face that published weights see, above 0 up to 1,
                as a fraction of its side. `load_expert` takes `PUBLISHED_FACE_CROP`.

        Raises:
            ConfigError: The face crop is out of its range.
        """
        if not 0 < face_crop <= 1:
            raise ConfigError(f"Expected face_crop above 0 and up to 1; found {face_crop}.")
        self.module = module.eval()
        self.input_px = input_px
        self.version = version
        self.trained_on = trained_on
        self.name = name
        self._published = published
        self._face_crop = face_crop

    @torch.inference_mode()
    def read(self, faces_NHWC: np.ndarray) -> Readings:
        """Read ages; see `AgeExpert.read`. Bodies count as missing.

        The spread comes from the sigma head. Published weights have none: there it is the standard
        deviation over four views (mirrored, and a tenth cropped away), to be scaled by calibration.
        """
        if self._published:
            faces = [central_crop(face_HWC, self._face_crop) for face_HWC in faces_NHWC]
            x_NCHW = letterboxed(faces, self.input_px, self._device)
        else:
            x_NCHW = faces_to_tensor(faces_NHWC, self._device, self.input_px)
            x_NCHW = normalise(x_NCHW, PROFILES[PROFILE])
        return _readings(*self.ages_from(x_NCHW))

    @torch.inference_mode()
    def read_with_bodies(
        self,
        faces: Sequence[np.ndarray] | np.ndarray,
        bodies: Sequence[np.ndarray | None] | np.ndarray,
    ) -> Readings:
        """Read ages from faces and bodies that a detector has cut tightly: no part is cut away.

        Args:
            faces: uint8 (H, W, 3), RGB, of any sizes, or one array (N, H, W, 3).
            bodies: The same for the bodies, None where missing.

        Raises:
            DataError: The network reads faces alone, the numbers of faces and bodies differ, or a
                picture has another shape or type.
        """
        if not self.module.with_body:
            raise DataError(
                "Expected weights of MiVOLO that read face and body; these read faces alone. "
                "Call read, or load a face+body checkpoint."
            )
        if len(faces) != len(bodies):
            raise DataError(
                f"Expected a body or None for each of {len(faces)} faces; found {len(bodies)}."
            )
        x_NCHW = letterboxed(faces, self.input_px, self._device)
        if any(body is not None for body in bodies):
            bodies_NCHW = letterboxed(bodies, self.input_px, self._device)
            x_NCHW = torch.cat([x_NCHW, bodies_NCHW], dim=1)
        return _readings(*self.ages_from(x_NCHW))

    def ages_from(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return ages and their spreads from prepared pictures; tensors in, tensors out.

        Args:
            x_NCHW: float (N, C, input_px, input_px), ImageNet-normalised, on the network's device.

        Returns:
            Ages, unbounded, and spreads, both in years, float (N,). The ages are those of the
            pictures as they are; other views of them only give the spread.
        """
        age_N, _, sigma_N = self.module(x_NCHW)
        if sigma_N is not None:
            return age_N, sigma_N
        zoomed_NCHW = _zoomed(x_NCHW)
        views = (x_NCHW.flip(3), zoomed_NCHW, zoomed_NCHW.flip(3))
        ages_VN = torch.stack([age_N, *(self.module(view_NCHW)[0] for view_NCHW in views)])
        return age_N, ages_VN.std(0).clamp(min=MIN_SIGMA_YEARS)

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device


def load_expert(name: str, expert: ExpertConfig, path: Path, device: torch.device) -> MiVOLOExpert:
    """Load MiVOLO, ours or published; see `kinds.ExpertKind`.

    Weights with a card of this project are ours; another file is a published checkpoint of version
    1, a folder is version 2.
    """
    card = {} if path.is_dir() else own_card(path, "mivolo", expert)
    if path.is_dir():
        module, input_px = read_published_folder(path, expert.size)
        digest = hash_folder(path)
    else:
        module, input_px = _read_own(path, card) if card else read_published(path, expert.size)
        digest = hash_file(path)
    return MiVOLOExpert(
        module.to(device),
        input_px,
        f"{digest[:12]}-{CODE_VERSION}",
        str(card.get("trained_on", "published")),
        name=name,
        published=not card,
        face_crop=1.0 if card else expert.face_crop or PUBLISHED_FACE_CROP,
    )


def _read_own(path: Path, card: dict[str, Any]) -> tuple[MiVOLO, int]:
    """Build the network that a card describes and load its weights."""
    input_px = int(card["input_px"])
    module = MiVOLO(card["size"], input_px)
    load_state(module, read_state(path), str(path))
    return module, input_px


def _zoomed(x_NCHW: Tensor) -> Tensor:
    """Cut a twentieth off every side and scale the rest up again."""
    side = x_NCHW.shape[2]
    margin = max(1, side // 20)
    inner_NCHW = x_NCHW[:, :, margin:-margin, margin:-margin]
    return nn.functional.interpolate(inner_NCHW, size=(side, side), mode="bilinear", antialias=True)


def _readings(age_N: Tensor, sigma_N: Tensor) -> Readings:
    """Return ages from 0 to 100; non-finite ones are failed readings."""
    age = age_N.float().cpu().numpy()
    sigma = sigma_N.float().cpu().numpy()
    finite = np.isfinite(age) & np.isfinite(sigma)
    return Readings(
        np.where(finite, np.clip(age, 0, 100), np.nan).astype(np.float32),
        np.where(finite, sigma, np.nan).astype(np.float32),
        None,
        None,
        tuple(None if good else "the network gave a non-finite value" for good in finite),
    )
