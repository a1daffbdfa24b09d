"""Bringing the panel together: what lies in the workspace and what the config names."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.statistics import Measure
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.evaluation.mixture_reader import load_mixture_reader, mixture_version
from agetf_pipeline.evaluation.panel import Panel

if TYPE_CHECKING:
    from agetf_pipeline.evaluation.attributes import ClassifierReader
    from agetf_pipeline.evaluation.judges import Judge

_OUTSIDE = {
    "age_estimator": "there is no age estimator outside training: see the stage train_evaluators",
    "embedder": "there is no identity embedder outside training: see the stage train_evaluators",
    "attributes": "there is no reader of attributes: supply "
    "train_evaluators.attribute_classifier_weights",
}
_PUBLISHED = {
    "inception": "FID and KID need InceptionV3 as published for FID, which is not part of this "
    "repository: supply evaluate.inception_weights (`agetf models fetch inception-fid`)",
    "lpips": "LPIPS needs AlexNet, which is not part of this repository: supply "
    "evaluate.alexnet_weights (`agetf models fetch alexnet-lpips`)",
}


@dataclass(frozen=True)
class _Estimator:
    """The age estimator outside training, as the panel asks it."""

    judge: "Judge"

    def read(self, faces_NHWC: np.ndarray) -> np.ndarray:
        """Return ages in years, float64 (N,)."""
        from agetf_pipeline.evaluation.judges import read_ages

        return read_ages(self.judge, faces_NHWC)


def evaluator_files(workspace: Workspace) -> dict[str, Path]:
    """Return the weights of the evaluators that the workspace has, by their place in the panel."""
    folder = workspace.models / "evaluators"
    files = {
        "age_estimator": folder / "age_estimator.safetensors",
        "embedder": folder / "identity_embedder.safetensors",
        "attributes": folder / "attribute_classifier.safetensors",
    }
    return {name: path for name, path in files.items() if path.is_file()}


def published_files(config: PipelineConfig) -> dict[str, Path]:
    """Return the published weights that the config names, by their place in the panel."""
    given = {
        "inception": config.evaluate.inception_weights,
        "lpips": config.evaluate.alexnet_weights,
    }
    return {name: path for name, path in given.items() if path is not None}


def panel_hashes(config: PipelineConfig, workspace: Workspace) -> dict[str, str]:
    """Return content hashes of everybody on the panel, without loading anybody."""
    from agetf_pipeline.data.faces import detector_version

    files = evaluator_files(workspace) | published_files(config)
    return {
        **{name: hash_file(path) if path.is_file() else "absent" for name, path in files.items()},
        **mixture_version(config, workspace),
        "face_finder": detector_version(),
    }


def load_panel(config: PipelineConfig, workspace: Workspace) -> Panel:
    """Load everybody who can be had; for the others the panel has the reason.

    Raises:
        WeightsError: A file that is there, or that the config names, cannot be used.
    """
    from agetf_pipeline.checkpoints import require_verified
    from agetf_pipeline.core.devices import resolve_device
    from agetf_pipeline.evaluation.attributes import load_attribute_reader
    from agetf_pipeline.evaluation.embedders import load_embedder
    from agetf_pipeline.evaluation.face_found import detector_finder
    from agetf_pipeline.evaluation.inception import load_inception
    from agetf_pipeline.evaluation.judges import AGE_KIND, load_judge
    from agetf_pipeline.evaluation.own_features import own_features
    from agetf_pipeline.evaluation.perceptual import load_lpips_distance

    device = resolve_device(config.runtime.device)
    there, published = evaluator_files(workspace), published_files(config)
    absent = {name: reason for name, reason in _OUTSIDE.items() if name not in there}
    absent |= {name: reason for name, reason in _PUBLISHED.items() if name not in published}
    for path in published.values():
        require_verified(path, workspace, config.runtime)
    mixture, why_not = load_mixture_reader(config, workspace)
    if why_not is not None:
        absent["mixture"] = why_not
    estimator = (
        load_judge(there["age_estimator"], AGE_KIND, device) if "age_estimator" in there else None
    )
    if estimator is None:
        absent["own_features"] = absent["age_estimator"]
    embedder = load_embedder(there["embedder"], device) if "embedder" in there else None
    reader = load_attribute_reader(there["attributes"], device) if "attributes" in there else None
    return Panel(
        None if estimator is None else _Estimator(estimator),
        mixture,
        embedder,
        reader,
        load_inception(published["inception"], device) if "inception" in published else None,
        None if estimator is None else own_features(estimator),
        load_lpips_distance(published["lpips"], device) if "lpips" in published else None,
        detector_finder(),
        {} if reader is None else _accuracy(reader),
        absent,
        panel_hashes(config, workspace),
    )


def _accuracy(reader: "ClassifierReader") -> dict[str, Measure]:
    reason = "no interval: it is what the reader's card says"
    return {
        name: Measure(own.accuracy, n=own.n, synthetic=own.synthetic, reason=reason)
        for name, own in reader.accuracy.items()
    }
