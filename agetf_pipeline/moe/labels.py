"""Labels from predictions: mixture, interval, and what becomes of the original label.

Shapes: N images, E experts.
"""

import json
import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from agetf_pipeline.config.relabel import RelabelConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import fingerprint
from agetf_pipeline.data.ages import AGE_GROUPS, group_bounds, group_of
from agetf_pipeline.data.schemas import LABELS
from agetf_pipeline.data.tables import to_frame
from agetf_pipeline.moe.calibration import Calibration, apply_calibration, interval
from agetf_pipeline.moe.mixture import Mixture

CODE_VERSION = "1"
"""Part of every label's version; raised when the arithmetic of labels changes."""

_DECIMALS = 4


@dataclass(frozen=True)
class ExpertMatrix:
    """Predictions of N images laid out by expert, in the order of `names` (sorted).

    Attributes:
        names: The E experts.
        age_NE: float64 (N, E), years, NaN where there is none.
        sigma_NE: float64 (N, E), years.
        ok_NE: bool (N, E).
        version_NE: object (N, E), model version, None where there is no row.
        reason_NE: object (N, E), why there is no answer, None where there is one.
    """

    names: list[str]
    age_NE: np.ndarray
    sigma_NE: np.ndarray
    ok_NE: np.ndarray
    version_NE: np.ndarray
    reason_NE: np.ndarray


def expert_matrix(predictions: pl.DataFrame, image_ids: list[str]) -> ExpertMatrix:
    """Lay predictions out as arrays, matched by image and expert, never by the order of rows.

    Args:
        predictions: Rows of table `predictions`, of one or more experts.
        image_ids: The N images, in the order wanted.

    Returns:
        The arrays. An expert without a row for an image did not answer: "no prediction".
    """
    names = sorted(predictions["expert"].unique().to_list())
    shape = (len(image_ids), len(names))
    age_NE, sigma_NE = np.full(shape, np.nan), np.full(shape, np.nan)
    ok_NE = np.zeros(shape, dtype=bool)
    version_NE = np.full(shape, None, dtype=object)
    reason_NE = np.full(shape, "no prediction", dtype=object)
    ids = pl.DataFrame({"image_id": image_ids}, schema={"image_id": pl.String})
    for e, name in enumerate(names):
        rows = ids.join(
            predictions.filter(pl.col("expert") == name),
            on="image_id",
            how="left",
            maintain_order="left",
        )
        age_NE[:, e] = rows["age_years"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        sigma_NE[:, e] = rows["sigma_years"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        version_NE[:, e] = rows["model_version"].to_list()
        good = np.isfinite(age_NE[:, e]) & np.isfinite(sigma_NE[:, e]) & (sigma_NE[:, e] > 0)
        status, reason = rows["status"].to_list(), rows["reason"].to_list()
        for n in range(shape[0]):
            if status[n] == "ok" and good[n]:
                ok_NE[n, e], reason_NE[n, e] = True, None
            elif status[n] is not None:
                reason_NE[n, e] = reason[n] or "the prediction holds no age or no sigma"
    return ExpertMatrix(names, age_NE, sigma_NE, ok_NE, version_NE, reason_NE)


def label_predictions(
    predictions: pl.DataFrame,
    images: pl.DataFrame,
    calibration: Calibration,
    config: RelabelConfig,
) -> pl.DataFrame:
    """Label images from what the experts read.

    Args:
        predictions: Rows of table `predictions`.
        images: Rows of table `images`: one label is given for each, answered or not. Needed are
            image_id, and what the corpus says: age_group, true_age_years.
        calibration: The mixture's parameters. An uncalibrated one works too, and every label then
            says `calibrated` false.
        config: Experts needed for a label; interval level where the calibration has none.

    Returns:
        Rows of table `labels`, sorted by image_id. Decisions: `keep`, the original group overlaps
        the interval, or the corpus gives the age itself; `relabel`, the original group lies
        outside it; `none`, there is no original label; `unlabelled`, too few experts answered.

    Raises:
        DataError: A prediction is of another model version than the calibration was fitted on, or
            an original age group is not one of FFHQ-Aging's.
    """
    images = images.sort("image_id")
    image_ids = images["image_id"].to_list()
    matrix = expert_matrix(predictions, image_ids)
    check_versions(matrix, calibration)
    if not calibration.calibrated:
        calibration = calibration.model_copy(update={"interval_level": config.interval_level})
    mixture, corrected_NE, scaled_NE, part_NE = apply_calibration(
        matrix.names, matrix.age_NE, matrix.sigma_NE, matrix.ok_NE, calibration, config.min_experts
    )
    low_N, high_N = interval(mixture.age_N, mixture.sigma_years, calibration)
    groups = images["age_group"].to_list()
    true_ages = images["true_age_years"].to_list()
    versions: dict[tuple, str] = {}
    rows = []
    for n, image_id in enumerate(image_ids):
        models = tuple(matrix.version_NE[n])
        if models not in versions:
            versions[models] = _label_version(matrix.names, models, calibration, config)
        labelled = bool(np.isfinite(mixture.age_N[n]))
        original = _original_group(image_id, groups[n], true_ages[n])
        decision, reason = (
            _decide(original, true_ages[n], float(low_N[n]), float(high_N[n]))
            if labelled
            else ("unlabelled", _why_unlabelled(matrix, part_NE, n, calibration, config))
        )
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
                "num_experts": int(mixture.num_experts_N[n]),
                "experts": _experts_json(
                    matrix, mixture, corrected_NE, scaled_NE, part_NE, calibration, n
                ),
                "original_age_group": original,
                "age_group": group_of(float(mixture.age_N[n])) if labelled else None,
                "decision": decision,
                "reason": reason,
                "calibrated": calibration.calibrated,
            }
        )
    return to_frame(rows, LABELS)


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


def _label_version(
    names: list[str], models: tuple, calibration: Calibration, config: RelabelConfig
) -> str:
    settings = {"min_experts": config.min_experts, "calibration": calibration.version}
    inputs = {name: model or "none" for name, model in zip(names, models, strict=True)}
    return fingerprint(settings, CODE_VERSION, inputs)[:16]


def _original_group(image_id: str, group: str | None, true_age: float | None) -> str | None:
    if group is None:
        return None if true_age is None else group_of(true_age)
    if group not in AGE_GROUPS:
        raise DataError(
            f"Expected an age group of {AGE_GROUPS}; found {group!r} for image {image_id}. "
            "Correct the corpus's labels (spreadsheets turn 3-6 into a date) and run ingest again."
        )
    return group


def _decide(
    original: str | None, true_age: float | None, low: float, high: float
) -> tuple[str, str | None]:
    if true_age is not None:
        inside = low <= true_age <= high
        return "keep", None if inside else (
            f"the corpus gives the age, {true_age:g}; it lies outside {low:.1f} to {high:.1f}"
        )
    if original is None:
        return "none", None
    lower, upper = group_bounds(original)
    if original == AGE_GROUPS[-1]:
        upper = math.inf  # people get older than the last bin
    if low < upper and high >= lower:
        return "keep", None
    return "relabel", f"{original} lies outside {low:.1f} to {high:.1f}"


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
    matrix: ExpertMatrix,
    mixture: Mixture,
    corrected_NE: np.ndarray,
    scaled_NE: np.ndarray,
    part_NE: np.ndarray,
    calibration: Calibration,
    n: int,
) -> str:
    """Return every expert's part in one label; ages and sigmas are the calibrated ones."""
    experts = {}
    for e, name in enumerate(matrix.names):
        answered, part = bool(matrix.ok_NE[n, e]), bool(part_NE[n, e])
        status = "ok" if part else "masked" if answered else "failed"
        if matrix.version_NE[n, e] is None:
            status = "missing"
        sigma = scaled_NE[n, e] if answered else np.nan
        experts[name] = {
            "age_years": _rounded(corrected_NE[n, e] if answered else np.nan),
            "raw_age_years": _rounded(matrix.age_NE[n, e] if answered else np.nan),
            "sigma_years": _rounded(sigma),
            "raw_sigma_years": _rounded(matrix.sigma_NE[n, e] if answered else np.nan),
            "confidence": _rounded(-np.log(sigma)),
            "weight": _rounded(mixture.weight_NE[n, e]),
            "status": status,
            "reason": None if part else _why_absent(matrix, calibration, name, n, e),
        }
    return json.dumps(experts, sort_keys=True, allow_nan=False)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _rounded(value: float) -> float | None:
    return round(float(value), _DECIMALS) if np.isfinite(value) else None
