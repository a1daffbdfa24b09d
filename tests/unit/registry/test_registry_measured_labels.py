import pytest

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.experts.load import weights_hash
from agetf_pipeline.moe.calibration import Calibration, ExpertCalibration
from agetf_pipeline.moe.labels import label_version
from agetf_pipeline.registry.measured_labels import why_not_its_own

NAMES = ["resnet50", "vgg16"]
CONFIG = PipelineConfig.model_validate({"train_experts": {"experts": {name: {} for name in NAMES}}})


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = Workspace(tmp_path)
    for name in NAMES:
        weights = workspace.models / "experts" / name / "weights.safetensors"
        weights.parent.mkdir(parents=True)
        weights.write_text(f"weights of {name}")
    calibrate(workspace)
    return workspace


def calibrate(workspace: Workspace, tau: float = 1.0) -> Calibration:
    experts = {
        name: ExpertCalibration(
            model_version=f"{weights_hash(CONFIG, workspace, name)[:12]}-1", num_images=100
        )
        for name in NAMES
    }
    calibration = Calibration(calibrated=True, experts=experts, tau=tau)
    calibration.save(workspace.models / "moe" / "calibration.json")
    return calibration


def measured(calibration: Calibration, *unread: str) -> dict:
    """An evaluation of labels by all experts, and of some that not all were asked for."""
    whole = tuple(calibration.experts[name].model_version for name in NAMES)
    part = tuple(
        None if name in unread else version for name, version in zip(NAMES, whole, strict=True)
    )
    versions = {
        label_version(NAMES, models, calibration, CONFIG.relabel) for models in (whole, part)
    }
    return {"label_versions": sorted(versions)}


def test_labels_of_the_present_calibration_and_experts_are_its_own(workspace):
    evaluation = measured(calibrate(workspace), "vgg16")
    assert len(evaluation["label_versions"]) == 2
    assert why_not_its_own(CONFIG, workspace, evaluation) is None


def test_labels_of_another_calibration_setting_or_version_are_not(workspace):
    evaluation = measured(calibrate(workspace))
    stricter = PipelineConfig.model_validate(
        {
            "train_experts": {"experts": {name: {} for name in NAMES}},
            "relabel": {"review_disagreement_years": 5.0},
        }
    )
    assert "make others" in (why_not_its_own(stricter, workspace, evaluation) or "")
    calibrate(workspace, tau=0.5)
    reason = why_not_its_own(CONFIG, workspace, evaluation) or ""
    assert evaluation["label_versions"][0] in reason
    assert "run the stages predict, relabel and evaluate again" in reason


def test_an_expert_that_was_trained_again_makes_another_mixture(workspace):
    evaluation = measured(calibrate(workspace))
    (workspace.models / "experts" / "vgg16" / "weights.safetensors").write_text("trained again")
    reason = why_not_its_own(CONFIG, workspace, evaluation) or ""
    assert "made with vgg16 of version" in reason


def test_an_evaluation_that_does_not_say_what_it_measured_counts_for_nothing(workspace):
    reason = why_not_its_own(CONFIG, workspace, {"metrics": {}}) or ""
    assert "does not say which labels it measured: run evaluate again" in reason
