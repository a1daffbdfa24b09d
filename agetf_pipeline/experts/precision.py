"""Reading in bfloat16, where the device computes in it and the ages stay what they are.

Half precision has moved the ages of regressors by years. So it is not taken on trust: an expert
reads a fixed set of drawn faces both ways when it is loaded, and keeps float32 where an age moves
by `MAX_SHIFT_YEARS` or more. The set is drawn, not taken from the data, so that the choice depends
on the weights and the device alone. A kind that
loads its weights in the precision asked for (Janus: published in bfloat16) is left out.
"""

import logging
from functools import lru_cache

import numpy as np
import torch

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.devices import computes_bf16
from agetf_pipeline.experts.base import AgeExpert, Readings

_LOGGER = logging.getLogger(__name__)
MAX_SHIFT_YEARS = 0.25
_NUM_FACES = 8
_FACE_PX = 128


class AutocastExpert:
    """An expert whose matrix products run in bfloat16; its weights and its answer stay float32."""

    def __init__(self, expert: AgeExpert, device: torch.device) -> None:
        self.name = expert.name
        self.version = expert.version + getattr(expert, "bf16_tag", "-bf16")
        self.trained_on = expert.trained_on
        self.inner = expert
        self._device_type = device.type

    def read(self, faces_NHWC: np.ndarray) -> Readings:
        """Read a batch of faces; see `AgeExpert.read`."""
        with torch.autocast(self._device_type, torch.bfloat16):
            return self.inner.read(faces_NHWC)


def in_precision(expert: AgeExpert, settings: ExpertConfig, device: torch.device) -> AgeExpert:
    """Return the expert in the precision that its settings ask for, where it may be had.

    Args:
        expert: The expert as loaded, in float32.
        settings: Its settings; `precision` says what is wanted.
        device: Where it runs.
    """
    if settings.precision != "bf16":
        return expert
    if not computes_bf16(device):
        _LOGGER.info("%s reads in fp32: %s does not compute in bf16", expert.name, device)
        return expert
    module = getattr(expert, "module", None)
    if isinstance(module, torch.nn.Module):
        # Half of the gain is the memory layout that bf16 convolutions want.
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    faster = AutocastExpert(expert, device)
    shift = age_shift_years(expert, faster)
    if shift < MAX_SHIFT_YEARS:
        keep_bf16_weights = getattr(expert, "keep_bf16_weights", None)
        if keep_bf16_weights is not None:
            keep_bf16_weights()
        return faster
    _LOGGER.warning(
        "%s reads in fp32: bf16 moves an age of the test faces by %.2f years, not under %.2f",
        expert.name, shift, MAX_SHIFT_YEARS,
    )  # fmt: skip
    return expert


def age_shift_years(first: AgeExpert, second: AgeExpert) -> float:
    """Return how far two experts' ages differ on the drawn faces; inf where one fails."""
    faces = _drawn_faces()
    shift = np.abs(first.read(faces).age_years - second.read(faces).age_years).max()
    return float(shift) if np.isfinite(shift) else float("inf")


@lru_cache(maxsize=1)
def _drawn_faces() -> np.ndarray:
    from agetf_pipeline.synthetic.faces import draw_face, draw_identity

    ages = np.linspace(2, 90, _NUM_FACES)
    return np.stack(
        [draw_face(draw_identity(seed), float(age), _FACE_PX) for seed, age in enumerate(ages)]
    )
