"""Labels from predictions: mixture, interval, and what becomes of the original label.

Shapes: N images, E experts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from agetf_pipeline.config.relabel import RelabelConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import fingerprint
from agetf_pipeline.data.ages import group_of
from agetf_pipeline.data.schemas import LABELS
from agetf_pipeline.data.tables import to_frame
from agetf_pipeline.moe.calibration import Calibration, apply_calibration, interval
from agetf_pipeline.moe.decisions import decide, original_group, reliability
from agetf_pipeline.moe.expert_matrix import ExpertMatrix, expert_matrix
from agetf_pipeline.moe.mixture import Mixture

CODE_VERSION = "2"
"""Part of every label's version; raised when the arithmetic of labels changes."""

_DECIMALS = 4


@dataclass(frozen=True)
class LabelledImages:
    """The labels of N images, with what made them.

    Attributes:
        rows: Rows of table `labels`, sorted by image_id.
        names: The E experts.
        mixture: The mixture's reading.
        age_NE: float64 (N, E), years, bias-corrected; NaN where there is none.
        sigma_NE: float64 (N, E), years, calibrated.
        part_NE: bool (N, E), whether the expert took part.
    """

    rows: pl.DataFrame
    names: list[str]
    mixture: Mixture
    age_NE: np.ndarray
    sigma_NE: np.ndarray
    part_NE: np.ndarray


def label_predictions(
    predictions: pl.DataFrame,
    images: pl.DataFrame,
    calibration: Calibration,
    config: RelabelConfig,
) -> pl.DataFrame:
    """Label images; the rows alone of what `label_images` gives."""
    return label_images(predictions, images, calibration, config).rows


def label_images(
    predictions: pl.DataFrame,
    images: pl.DataFrame,
    calibration: Calibration,
    config: RelabelConfig,
    names: Sequence[str] | None = None,
) -> LabelledImages:
    """Label images from what the experts read.

    Args:
        predictions: Rows of table `predictions`.
        images: Rows of table `images`: one label is given for each, answered or not. Needed are
            image_id, and what the corpus says: age_group, true_age_years.
        calibration: The mixture's parameters. An uncalibrated one works too, and every label then
            says `calibrated` false.
        config: Experts needed for a label; thresholds of the decisions; interval level where the
            calibration has none.
        names: The experts; None for those that `predictions` holds. To be given where images are
            labelled a slice at a time: in one slice an expert may be absent.

    Returns:
        The labels. Decisions: see `decisions.decide`; `unlabelled`, too few experts answered.

    Raises:
        DataError: A prediction is of another model version than the calibration was fitted on, or
            an original age group is not one of FFHQ-Aging's.
    """
    images = images.sort("image_id")
    matrix = expert_matrix(predictions, images["image_id"].to_list(), names)
    check_versions(matrix, calibration)
    if not calibration.calibrated:
        calibration = calibration.model_copy(update={"interval_level": config.interval_level})
    mixture, age_NE, sigma_NE, part_NE = apply_calibration(
        matrix.names, matrix.age_NE, matrix.sigma_NE, matrix.ok_NE, calibration, config.min_experts
    )
    labelled = LabelledImages(pl.DataFrame(), matrix.names, mixture, age_NE, sigma_NE, part_NE)
    rows = _rows(labelled, matrix, images, calibration, config)
    return replace(labelled, rows=to_frame(rows, LABELS))


def _rows(
    labelled: LabelledImages,
    matrix: ExpertMatrix,
    images: pl.DataFrame,
    calibration: Calibration,
    config: RelabelConfig,
) -> list[dict]:
    mixture, part_NE = labelled.mixture, labelled.part_NE
    low_N, high_N = interval(mixture.age_N, mixture.sigma_years, calibration)
    score_N = reliability(mixture, calibration)
    disagreement_N = np.sqrt(mixture.between_N)
    versions: dict[tuple, str] = {}
    rows = []
    about = images.select("image_id", "age_group", "true_age_years").iter_rows()
    for n, (image_id, group, true_age) in enumerate(about):
        models = tuple(matrix.version_NE[n])
        if models not in versions:
            versions[models] = label_version(matrix.names, models, calibration, config)
        known = bool(np.isfinite(mixture.age_N[n]))
        original = original_group(image_id, group, true_age)
        decision, reason = (
            decide(
                original, true_age, float(low_N[n]), float(high_N[n]), float(score_N[n]),
                float(disagreement_N[n]), config,
            )
            if known
            else ("unlabelled", _why_unlabelled(matrix, part_NE, n, calibration, config))
        )  # fmt: skip
        rows.append(
            {
                "image_id": image_id,
                "label_version": versions[models],
                "age_years": _number(mixture.age_N[n]),
                "variance_years2": _number(mixture.variance_years2[n]),
                "within_variance_years2": _number(mixture.within_N[n]),
                "between_variance_years2": _number(mixture.between_N[n]),
                "interval_low_years": _number(low_N[n]),
                "interval_high_years": _number(high_N[n]),
                "reliability": _number(score_N[n]),
                "num_experts": int(mixture.num_experts_N[n]),
                "experts": _experts_json(labelled, matrix, calibration, n),
                "original_age_group": original,
                "age_group": group_of(float(mixture.age_N[n])) if known else None,
                "decision": decision,
                "reason": reason,
                "calibrated": calibration.calibrated,
            }
        )
    return rows


def check_versions(matrix: ExpertMatrix, calibration: Calibration) -> None:
    """Refuse to apply a calibration to experts that it was not fitted on.

    Raises:
        DataError: An expert is unknown to the calibration, or has other weights.
    """
    if not calibration.calibrated:
        return
    for e, name in enumerate(matrix.names):
        found = {version for version in matrix.version_NE[:, e] if version is not None}
        known = calibration.experts.get(name)
        expected = None if known is None else known.model_version
        if found - {expected}:
            raise DataError(
                f"Expected predictions of {name} by version {expected} (the calibration was fitted "
                f"on it); found {sorted(found)}. Run the stages 'predict' (every partition) and "
                "'relabel' again, or give a calibration of these weights."
            )


def label_version(
    names: list[str], models: tuple, calibration: Calibration, config: RelabelConfig
) -> str:
    """Return the version of labels by experts of these models (None: not read); 16 digits."""
    settings = {
        "min_experts": config.min_experts,
        "drop_below_reliability": config.drop_below_reliability,
        "review_below_reliability": config.review_below_reliability,
        "review_disagreement_years": config.review_disagreement_years,
        "calibration": calibration.version,
    }
    inputs = {name: model or "none" for name, model in zip(names, models, strict=True)}
    return fingerprint(settings, CODE_VERSION, inputs)[:16]


def _why_unlabelled(
    matrix: ExpertMatrix,
    part_NE: np.ndarray,
    n: int,
    calibration: Calibration,
    config: RelabelConfig,
) -> str:
    causes = []
    for e, name in enumerate(matrix.names):
        if not part_NE[n, e]:
            causes.append(f"{name}: {_why_absent(matrix, calibration, name, n, e)}")
    text = f"{int(part_NE[n].sum())} experts answered; {config.min_experts} are needed"
    return f"{text} ({'; '.join(causes)})" if causes else text


def _why_absent(
    matrix: ExpertMatrix, calibration: Calibration, name: str, n: int, e: int
) -> str | None:
    if matrix.reason_NE[n, e] is not None:
        return matrix.reason_NE[n, e]
    expert = calibration.experts.get(name)
    return None if expert is None or expert.usable else expert.reason


def _experts_json(
    labelled: LabelledImages, matrix: ExpertMatrix, calibration: Calibration, n: int
) -> str:
    """Return every expert's part in one label; ages and sigmas are the calibrated ones."""
    experts = {}
    for e, name in enumerate(matrix.names):
        answered, part = bool(matrix.ok_NE[n, e]), bool(labelled.part_NE[n, e])
        status = "ok" if part else "masked" if answered else "failed"
        if matrix.version_NE[n, e] is None:
            status = "missing"
        sigma = labelled.sigma_NE[n, e] if answered else np.nan
        experts[name] = {
            "age_years": _rounded(labelled.age_NE[n, e] if answered else np.nan),
            "raw_age_years": _rounded(matrix.age_NE[n, e] if answered else np.nan),
            "sigma_years": _rounded(sigma),
            "raw_sigma_years": _rounded(matrix.sigma_NE[n, e] if answered else np.nan),
            "confidence": _rounded(-np.log(sigma)),
            "weight": _rounded(labelled.mixture.weight_NE[n, e]),
            "status": status,
            "reason": None if part else _why_absent(matrix, calibration, name, n, e),
        }
    return json.dumps(experts, sort_keys=True, allow_nan=False)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _rounded(value: float) -> float | None:
    return round(float(value), _DECIMALS) if np.isfinite(value) else None
