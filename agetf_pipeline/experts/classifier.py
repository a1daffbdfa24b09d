"""An expert that answers with a distribution over 101 ages: ResNet50 and VGG16."""

import numpy as np
import torch
from torch import nn

from agetf_pipeline.experts.base import Readings, readings_from_distribution
from agetf_pipeline.experts.preprocess import faces_to_tensor, normalise, profile_named


class ClassifierExpert:
    """A network with 101 logits as an age expert. It reads in fp32, as every age network here."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        input_px: int,
        profile: str,
        version: str,
        trained_on: str,
    ) -> None:
        self.name = name
        self.module = module.eval()
        self.input_px = input_px
        self.version = version
        self.trained_on = trained_on
        self._profile = profile_named(profile)

    @torch.inference_mode()
    def read(self, faces_NHWC: np.ndarray) -> Readings:
        """Read distributions over ages; see `AgeExpert.read`."""
        device = next(self.module.parameters()).device
        x_NCHW = faces_to_tensor(faces_NHWC, device, self.input_px)
        logits_NA = self.module(normalise(x_NCHW, self._profile))
        return readings_from_distribution(logits_NA.float().softmax(1).cpu().numpy())
