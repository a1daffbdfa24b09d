"""Our experts against the libraries' own networks with the same weights."""

import numpy as np
import torch
from timm.models.volo import volo_d1_224
from torchvision.models import resnet50
from torchvision.transforms._presets import ImageClassification

from agetf_pipeline.experts.classifier import ClassifierExpert
from agetf_pipeline.experts.mivolo import AgeRange, MiVOLO, MiVOLOExpert
from agetf_pipeline.experts.resnet50 import build_resnet50


def _faces() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)


def _preset(faces: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(faces).permute(0, 3, 1, 2)
    return ImageClassification(crop_size=224, resize_size=224)(x)


def test_mivolo_equals_timms_volo_d1_with_three_outputs():
    torch.manual_seed(0)
    volo = volo_d1_224(pretrained=False, num_classes=3).eval()
    ours = MiVOLO("full", 224, AgeRange(0, 100, 50))
    ours.volo.load_state_dict(volo.state_dict(), strict=True)
    age = MiVOLOExpert(ours, 224, "v", "none").read(_faces()).age_years
    with torch.inference_mode():
        expected = volo(_preset(_faces()))[:, 2] * 100 + 50
    assert np.allclose(age, expected.clamp(0, 100).numpy(), atol=1e-3)


def test_resnet50_equals_torchvisions():
    torch.manual_seed(0)
    theirs = resnet50(num_classes=101).eval()
    ours = build_resnet50("full")
    ours.load_state_dict(theirs.state_dict(), strict=True)
    readings = ClassifierExpert("resnet50", ours, 224, "imagenet", "v", "none").read(_faces())
    with torch.inference_mode():
        expected = theirs(_preset(_faces())).softmax(1).numpy()
    assert readings.distribution is not None
    assert np.allclose(readings.distribution, expected, atol=1e-6)
