"""Features of a network of this project, where there is no InceptionV3.

Distances in them carry names of their own (`kid_own_features`): they compare models that were
measured with one and the same network, and nothing else. They are neither FID nor KID.

Shapes: N images, C channels, D features, H W the side of an image.
"""

from dataclasses import dataclass

import numpy as np
import torch

from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.evaluation.judges import Judge, to_input

_BATCH = 64


@dataclass(frozen=True)
class OwnFeatures:
    """The trunk of an evaluator at work; a `panel.FeatureExtractor`.

    Attributes:
        judge: The evaluator.
    """

    judge: Judge

    @torch.inference_mode()
    def features(self, images_NHWC: np.ndarray) -> np.ndarray:
        """Return the trunk's features, averaged over the image, float32 (N, D)."""
        trunk = _trunk(self.judge)

        def features(rows: slice) -> torch.Tensor:
            x_NCHW = trunk(to_input(images_NHWC[rows], self.judge.input_px, self.judge.device))
            return x_NCHW.mean(dim=(2, 3)).float().cpu()

        # Without any images one empty batch still tells the number of features.
        num = max(len(images_NHWC), 1)
        parts = in_batches(features, num, _BATCH, Work("an evaluator's features"))
        return torch.cat([part for _, part in parts]).numpy()


def own_features(judge: Judge) -> OwnFeatures:
    """Return the features of an evaluator's trunk.

    Args:
        judge: An age estimator or identity embedder of this project.

    Raises:
        WeightsError: The network has no trunk: it is one of somebody else's.
    """
    _trunk(judge)
    return OwnFeatures(judge)


def _trunk(judge: Judge) -> torch.nn.Module:
    trunk = getattr(judge.module, "trunk", None)
    if not isinstance(trunk, torch.nn.Module):
        raise WeightsError(
            "Expected an age estimator or identity embedder of this project, whose trunk gives "
            f"features; found {type(judge.module).__name__}. Take the other evaluator, or supply "
            "InceptionV3 by evaluate.inception_weights."
        )
    return trunk
