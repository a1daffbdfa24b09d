"""What MiVOLO learns from: age, gender where it is known, and how far its ages are off.

Shapes: N images.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from agetf_pipeline.experts.augment import Augmentation
from agetf_pipeline.experts.heads import gaussian_nll, regression_loss

AUGMENTATION = Augmentation(p_grey=0.12, p_blur=0.04, max_turn_rad=0.04)
_GENDER_WEIGHT = 0.1
_SIGMA_WEIGHT = 0.1
_NO_GENDER = -1


def mivolo_loss(module: nn.Module, x_NCHW: Tensor, ages_N: Tensor, genders_N: Tensor) -> Tensor:
    """Age error, gender where it is known, and the likelihood of the spread (its head alone).

    See `kinds.Trainer.loss` for the arguments.
    """
    age_N, gender_N2, sigma_N = module(x_NCHW)
    loss = regression_loss(age_N, ages_N)
    if sigma_N is not None:
        loss = loss + _SIGMA_WEIGHT * gaussian_nll((age_N - ages_N).detach(), sigma_N)
    if gender_N2 is not None and bool((genders_N != _NO_GENDER).any()):
        loss = loss + _GENDER_WEIGHT * F.cross_entropy(
            gender_N2, genders_N, ignore_index=_NO_GENDER
        )
    return loss
