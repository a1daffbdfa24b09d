"""Whose labels an evaluation measured: those of the mixture that is registered, or of another."""

from collections.abc import Mapping
from itertools import product
from typing import Any

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace
from agetf_pipeline.registry.promotion import EVALUATE_AGAIN

_HASH_DIGITS = 12
"""Of its weights' sha256, with which an expert's version begins."""


def why_not_its_own(
    config: PipelineConfig, workspace: Workspace, evaluation: Mapping[str, Any]
) -> str | None:
    """Return why the labels that were measured are not the present mixture's; None: they are.

    Args:
        config: The mixture's experts and settings.
        workspace: Holds its calibration, weights and readings.
        evaluation: The contents of metrics.json; `label_versions` are those of what was measured.
    """
    measured = evaluation.get("label_versions")
    if measured is None:
        return f"the evaluation does not say which labels it measured: {EVALUATE_AGAIN}"
    versions, reason = _expert_versions(config, workspace)
    if versions is None:
        return reason
    others = sorted(set(measured) - _label_versions(config, workspace, versions))
    if not others:
        return None
    return (
        f"labels of version {', '.join(others)} were measured, and the present calibration and "
        "experts make others: run the stages predict, relabel and evaluate again"
    )


def _expert_versions(
    config: PipelineConfig, workspace: Workspace
) -> tuple[dict[str, str] | None, str]:
    """Return each expert's version in the mixture; None, with the reason, where it is not one."""
    from agetf_pipeline.experts.load import weights_hash
    from agetf_pipeline.moe.calibration import calibration_path, load_calibration
    from agetf_pipeline.moe.readings import expert_versions

    calibration = load_calibration(calibration_path(config.relabel, workspace))
    if calibration.calibrated:
        versions = {name: item.model_version for name, item in calibration.experts.items()}
    else:
        versions = expert_versions(workspace, [FFHQ_PARTITION])
    for name in config.train_experts.experts:
        sha256 = weights_hash(config, workspace, name)
        if not versions.get(name, "").startswith(sha256[:_HASH_DIGITS]):
            return None, (
                f"the mixture was made with {name} of version {versions.get(name, 'none')}, its "
                f"weights are {sha256[:_HASH_DIGITS]} now: run the stages predict, relabel and "
                "evaluate again"
            )
    return versions, ""


def _label_versions(
    config: PipelineConfig, workspace: Workspace, versions: Mapping[str, str]
) -> set[str]:
    """Return the versions that labels of the mixture can have, whichever experts were asked."""
    from agetf_pipeline.moe.calibration import calibration_path, load_calibration
    from agetf_pipeline.moe.labels import label_version

    calibration = load_calibration(calibration_path(config.relabel, workspace))
    names = sorted(config.train_experts.experts)
    choices = product(*((versions[name], None) for name in names))
    return {label_version(names, models, calibration, config.relabel) for models in choices}
