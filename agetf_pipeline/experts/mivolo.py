"""MiVOLO: age and gender from a face by a Vision Outlooker.

Our module is built from timm's VOLO, whose parameter names the published face-only weights share;
the spread of the age is read by a small head of ours beside it. The patch embedding is one module
(`volo.patch_embed`) that turns the input channels into tokens, so that one that also reads the
body can stand in its place without touching anything else.

Sources: Kuprashevich and Tolstykh, "MiVOLO: Multi-input Transformer for Age and Gender
Estimation", 2023; Yuan et al., "VOLO: Vision Outlooker for Visual Recognition", 2021.

Shapes: N images, T tokens, D features, O outputs (2 gender logits and an age, or an age alone).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from timm.models.volo import VOLO
from torch import Tensor, nn

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import load_state, read_state
from agetf_pipeline.experts.base import Readings
from agetf_pipeline.experts.heads import MIN_SIGMA_YEARS, SigmaHead
from agetf_pipeline.experts.kinds import Trainer
from agetf_pipeline.experts.mivolo_training import AUGMENTATION, mivolo_loss
from agetf_pipeline.experts.own_weights import own_card
from agetf_pipeline.experts.preprocess import PROFILES, faces_to_tensor, normalise

CODE_VERSION = "1"
PROFILE = "imagenet"
NUM_OUTPUTS = 3
_PX_PER_POSITION = 16


@dataclass(frozen=True)
class Layout:
    """Depths, widths and heads of the four stages, and the width of the convolutional stem."""

    layers: tuple[int, ...]
    dims: tuple[int, ...]
    heads: tuple[int, ...]
    stem_dim: int


LAYOUTS: dict[str, Layout] = {
    # VOLO-d1.
    "full": Layout((4, 4, 8, 2), (192, 384, 384, 384), (6, 12, 12, 12), 64),
    "tiny": Layout((1, 1, 1, 1), (48, 96, 96, 96), (3, 6, 6, 6), 12),
}


@dataclass(frozen=True)
class AgeRange:
    """Scale of the age output: `age = out * (max - min) + average`, in years."""

    min_years: float = 0.0
    max_years: float = 100.0
    average_years: float = 40.0


def build_volo(
    size: Literal["tiny", "full"], input_px: int, num_outputs: int = NUM_OUTPUTS
) -> VOLO:
    """Return the trunk with its age and gender outputs, randomly initialised.

    Raises:
        WeightsError: The input size does not fit the two reductions (8 and 2).
    """
    if input_px % _PX_PER_POSITION:
        raise WeightsError(
            f"Expected an input size for MiVOLO that is a multiple of {_PX_PER_POSITION}; found "
            f"{input_px}. Change train_experts.experts.mivolo.input_px."
        )
    layout = LAYOUTS[size]
    return VOLO(
        layers=list(layout.layers),
        img_size=input_px,
        num_classes=num_outputs,
        embed_dims=list(layout.dims),
        num_heads=list(layout.heads),
        stem_hidden_dim=layout.stem_dim,
    )


class MiVOLO(nn.Module):
    """The trunk, the scale of its age output, and the head that reads the spread.

    State: `volo.*` (the published names), `sigma_head.*` (ours), `age_range_years` (min, max, avg).
    """

    def __init__(
        self,
        size: Literal["tiny", "full"],
        input_px: int,
        age_range: AgeRange | None = None,
        num_outputs: int = NUM_OUTPUTS,
        with_sigma: bool = True,
    ) -> None:
        super().__init__()
        self.volo = build_volo(size, input_px, num_outputs)
        self.sigma_head = SigmaHead(LAYOUTS[size].dims[-1]) if with_sigma else None
        scale = age_range or AgeRange()
        values = [scale.min_years, scale.max_years, scale.average_years]
        self.age_range_years: Tensor
        self.register_buffer("age_range_years", torch.tensor(values))

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Read ages and genders.

        Args:
            x_NCHW: float (N, 3, input_px, input_px), ImageNet-normalised RGB.

        Returns:
            Ages in years (N,), unbounded; gender logits (N, 2), None for a network with the age
            alone; spreads in years (N,), None for a network without that head.
        """
        tokens_NTD = self.volo.forward_features(x_NCHW)
        out_NO = self.volo.forward_head(tokens_NTD)
        has_gender = out_NO.shape[1] == NUM_OUTPUTS
        low, high, average = self.age_range_years
        age_N = out_NO[:, 2 if has_gender else 0].float() * (high - low) + average
        sigma_N = None
        if self.sigma_head is not None:
            sigma_N = self.sigma_head(tokens_NTD[:, 0].detach().float())
        return age_N, out_NO[:, :2] if has_gender else None, sigma_N


class MiVOLOExpert:
    """MiVOLO as an age expert. The network reads in fp32: half precision moved ages by years."""

    name = "mivolo"

    def __init__(self, module: MiVOLO, input_px: int, version: str, trained_on: str) -> None:
        self.module = module.eval()
        self.input_px = input_px
        self.version = version
        self.trained_on = trained_on

    @torch.inference_mode()
    def read(self, faces_NHWC: np.ndarray) -> Readings:
        """Read ages; see `AgeExpert.read`.

        The spread comes from the sigma head. Published weights have none: there it is the standard
        deviation over four views (mirrored, and a tenth cropped away), to be scaled by calibration.
        """
        device = next(self.module.parameters()).device
        x_NCHW = faces_to_tensor(faces_NHWC, device, self.input_px)
        age_N, _, sigma_N = self.module(normalise(x_NCHW, PROFILES[PROFILE]))
        if sigma_N is None:
            age_N, sigma_N = self._read_views(x_NCHW, age_N)
        age = age_N.cpu().numpy().astype(np.float32)
        sigma = sigma_N.cpu().numpy().astype(np.float32)
        finite = np.isfinite(age) & np.isfinite(sigma)
        reasons = tuple(None if good else "the network gave a non-finite value" for good in finite)
        return Readings(
            np.where(finite, np.clip(age, 0, 100), np.nan).astype(np.float32),
            np.where(finite, sigma, np.nan).astype(np.float32),
            None,
            None,
            reasons,
        )

    def _read_views(self, x_NCHW: Tensor, age_N: Tensor) -> tuple[Tensor, Tensor]:
        margin = max(1, self.input_px // 20)
        inner_NCHW = x_NCHW[:, :, margin:-margin, margin:-margin]
        zoomed_NCHW = nn.functional.interpolate(
            inner_NCHW, size=x_NCHW.shape[2:], mode="bilinear", antialias=True
        )
        views = (x_NCHW.flip(3), zoomed_NCHW, zoomed_NCHW.flip(3))
        ages = [self.module(normalise(view_NCHW, PROFILES[PROFILE]))[0] for view_NCHW in views]
        ages_VN = torch.stack([age_N, *ages])
        return ages_VN.mean(0), ages_VN.std(0).clamp(min=MIN_SIGMA_YEARS)


def read_published(path: Path, size: Literal["tiny", "full"] = "full") -> tuple[MiVOLO, int]:
    """Build MiVOLO from a published face-only checkpoint, loaded strictly.

    Args:
        path: A PyTorch file: a dict of `state_dict`, `min_age`, `max_age`, `avg_age` and flags.
        size: Layout of the trunk.

    Returns:
        The network, without a sigma head, and its input size in pixels.

    Raises:
        WeightsError: Something is missing, or the checkpoint also reads the body.
    """
    checkpoint: dict[str, Any] = read_state(path)
    absent = [k for k in ("state_dict", "min_age", "max_age", "avg_age") if k not in checkpoint]
    if absent:
        raise WeightsError(
            f"Expected a published MiVOLO checkpoint at {path}; it lacks {absent}. Supply the "
            "original file, or weights written by the stage train_experts."
        )
    # Feature-distribution smoothing is a training aid; it has no part in reading.
    state = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith("fds.")}
    if any(key.startswith("patch_embed.conv1") for key in state):
        raise WeightsError(
            f"Expected face-only MiVOLO weights; {path} also reads the body (two patch "
            "embeddings). Supply the face-only checkpoint."
        )
    if "pos_embed" not in state or "head.weight" not in state:
        raise WeightsError(f"Expected pos_embed and head.weight in {path}; found neither or one.")
    input_px = state["pos_embed"].shape[1] * _PX_PER_POSITION
    scale = AgeRange(*(float(checkpoint[key]) for key in ("min_age", "max_age", "avg_age")))
    num_outputs = state["head.weight"].shape[0]
    module = MiVOLO(size, input_px, scale, num_outputs, with_sigma=False)
    load_state(module.volo, state, str(path))
    return module, input_px


TRAINER = Trainer(
    build=lambda expert, mean_age: MiVOLO(
        expert.size, expert.input_px, AgeRange(average_years=mean_age)
    ),
    loss=mivolo_loss,
    augmentation=AUGMENTATION,
    profile=PROFILE,
)


def load_expert(name: str, expert: ExpertConfig, path: Path, device: torch.device) -> MiVOLOExpert:
    """Load MiVOLO, ours or published; see `kinds.ExpertKind`."""
    card = own_card(path, "mivolo", expert)
    if card:
        input_px = int(card["input_px"])
        module = MiVOLO(card["size"], input_px)
        load_state(module, read_state(path), str(path))
    else:
        module, input_px = read_published(path, expert.size)
    version = f"{hash_file(path)[:12]}-{CODE_VERSION}"
    trained_on = str(card.get("trained_on", "published"))
    return MiVOLOExpert(module.to(device), input_px, version, trained_on)
