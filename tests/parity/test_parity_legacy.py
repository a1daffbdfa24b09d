"""The research code's checkpoints in our modules: against plain functions of their tensors, and
against ages that the research code's own modules gave."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from legacy_cases import (
    expected_ages,
    pictures,
    resnet50_logits,
    resnet50_shapes,
    seeded_weights,
    vgg16_logits,
    vgg16_shapes,
)
from torch import Tensor
from torchvision.models import resnet50

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.weights import load_state
from agetf_pipeline.experts.classifier import ClassifierExpert
from agetf_pipeline.experts.legacy import LegacyWeights, recognise_legacy
from agetf_pipeline.experts.resnet50 import load_expert

CPU = torch.device("cpu")
GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "legacy_research.json").read_text(encoding="utf-8")
)
MAX_YEARS = 1e-4


def _with_unused(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Beside the heads that the research code's file carries and never calls."""
    shapes = {"classifier": (8631, 2048, 1, 1), "classgage": (164, 2048, 1, 1), "fc": (101, 101)}
    for name, shape in shapes.items():
        state |= {f"{name}.weight": torch.ones(shape), f"{name}.bias": torch.ones(shape[0])}
    return state


def _expert(weights: LegacyWeights | None) -> ClassifierExpert:
    assert weights is not None
    module = weights.build()
    load_state(module, weights.state, "a test")
    return ClassifierExpert(weights.kind, module, 224, weights.profile, "v", "none")


@torch.inference_mode()
def test_the_research_codes_resnet50_loads_from_its_file_and_reads_the_same_ages(tmp_path: Path):
    state = seeded_weights(resnet50_shapes())
    whole = _with_unused(dict(state))
    assert len(whole) == GOLDEN["num_keys"]["resnet50"]
    assert sorted(set(whole) - set(state)) == GOLDEN["unused_keys"]["resnet50"]
    path = tmp_path / "age_estimator.pth"
    torch.save(whole, path)
    # Whatever profile the config names: the keys say which one it is.
    expert = load_expert("resnet50", ExpertConfig(profile="imagenet"), path, CPU)
    ages = expert.read(pictures()).age_years
    assert np.abs(ages - expected_ages(resnet50_logits(state, pictures()))).max() <= MAX_YEARS
    assert np.abs(ages - GOLDEN["age_years"]["resnet50"]).max() <= MAX_YEARS
    assert expert.trained_on == "published"

    # In torchvision's own strides and pooling the same weights read other ages.
    plain = resnet50(num_classes=101)
    plain.load_state_dict(expert.module.state_dict(), strict=True)
    other = ClassifierExpert("resnet50", plain, 224, "raw_bgr", "v", "none").read(pictures())
    assert np.abs(other.age_years - ages).min() > 0.5


@torch.inference_mode()
def test_the_research_codes_vgg16_reads_the_same_ages():
    state = seeded_weights(vgg16_shapes())
    assert len(state) == GOLDEN["num_keys"]["vgg16"]
    expert = _expert(recognise_legacy(state, "a test"))
    ages = expert.read(pictures()).age_years
    assert np.abs(ages - expected_ages(vgg16_logits(state, pictures()))).max() <= MAX_YEARS
    assert np.abs(ages - GOLDEN["age_years"]["vgg16"]).max() <= MAX_YEARS


@pytest.mark.parametrize("kind", ["resnet50", "vgg16"])
def test_golden_ages_tell_pictures_apart(kind: str):
    ages = sorted(GOLDEN["age_years"][kind])
    assert min(np.diff(ages)) > 1
