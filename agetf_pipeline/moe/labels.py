"""Labels from predictions: mixture, interval, and what becomes of the original label.

Shapes: N images, E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from agetf_pipeline.config.relabel import RelabelConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.hashing import fingerprint
from agetf_pipeline.data.ages import age_group
from agetf_pipeline.data.schemas import LABELS
from agetf_pipeline.data.tables import empty_frame
from agetf_pipeline.moe.calibration import Calibration, apply_calibration, interval
from agetf_pipeline.moe.decisions import decide, original_group, reliability
from agetf_pipeline.moe.expert_matrix import ExpertMatrix, expert_matrix
from agetf_pipeline.moe.experts_json import numbers, objects, texts
from agetf_pipeline.moe.mixture import Mixture

CODE_VERSION = "2"
"""Part of every label's version; raised when the arithmetic of labels changes."""


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
    return replace(labelled, rows=_rows(labelled, matrix, images, calibration, config))


def _rows(
    labelled: LabelledImages,
    matrix: ExpertMatrix,
    images: pl.DataFrame,
    calibration: Calibration,
    config: RelabelConfig,
) -> pl.DataFrame:
    """Return the rows of the table, columns at a time where there is arithmetic in them."""
    mixture = labelled.mixture
    low_N, high_N = interval(mixture.age_N, mixture.sigma_years, calibration)
    score_N = reliability(mixture, calibration)
    columns = {
        "age_years": mixture.age_N,
        "variance_years2": mixture.variance_years2,
        "within_variance_years2": mixture.within_N,
        "between_variance_years2": mixture.between_N,
        "interval_low_years": low_N,
        "interval_high_years": high_N,
        "reliability": score_N,
    }
    original = [
        original_group(*row)
        for row in images.select("image_id", "age_group", "true_age_years").iter_rows()
    ]
    decided = _decide_all(labelled, matrix, images, calibration, config, original, low_N, high_N)
    frame = pl.DataFrame(
        {
            "image_id": images["image_id"],
            "label_version": _label_versions(matrix, calibration, config),
            **{name: _numbers(values) for name, values in columns.items()},
            "num_experts": pl.Series(mixture.num_experts_N, dtype=pl.Int32),
            "experts": _experts_json(labelled, matrix, calibration),
            "original_age_group": pl.Series(original, dtype=pl.String),
            "decision": pl.Series([decision for decision, _ in decided], dtype=pl.String),
            "reason": pl.Series([reason for _, reason in decided], dtype=pl.String),
            "calibrated": pl.Series([calibration.calibrated] * images.height, dtype=pl.Boolean),
            "_age": pl.Series(np.where(np.isfinite(mixture.age_N), mixture.age_N, np.nan)),
        }
    )
    schema = empty_frame(LABELS).schema
    return frame.with_columns(age_group=age_group("_age")).select(list(schema)).cast(schema)


def _decide_all(
    labelled: LabelledImages,
    matrix: ExpertMatrix,
    images: pl.DataFrame,
    calibration: Calibration,
    config: RelabelConfig,
    original: list[str | None],
    low_N: np.ndarray,
    high_N: np.ndarray,
) -> list[tuple[str, str | None]]:
    """Return decision and reason of each image."""
    known_N = np.isfinite(labelled.mixture.age_N)
    columns = zip(
        known_N.tolist(), original, images["true_age_years"].to_list(), low_N.tolist(),
        high_N.tolist(), reliability(labelled.mixture, calibration).tolist(),
        np.sqrt(labelled.mixture.between_N).tolist(), strict=True,
    )  # fmt: skip
    decided: list[tuple[str, str | None]] = []
    for n, (known, group, true_age, low, high, score, disagreement) in enumerate(columns):
        if known:
            decided.append(decide(group, true_age, low, high, score, disagreement, config))
        else:
            why = _why_unlabelled(matrix, labelled.part_NE, n, calibration, config)
            decided.append(("unlabelled", why))
    return decided


def _label_versions(
    matrix: ExpertMatrix, calibration: Calibration, config: RelabelConfig
) -> pl.Series:
    """Return the version of every label; the combinations of models are few."""
    rows = list(map(tuple, matrix.version_NE.tolist()))
    versions = {
        models: label_version(matrix.names, models, calibration, config) for models in set(rows)
    }
    return pl.Series([versions[models] for models in rows], dtype=pl.String)


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
    labelled: LabelledImages, matrix: ExpertMatrix, calibration: Calibration
) -> pl.Series:
    """Return every expert's part in each label; ages and sigmas are the calibrated ones."""
    fields = {}
    for e, name in enumerate(matrix.names):
        answered_N, part_N = matrix.ok_NE[:, e], labelled.part_NE[:, e]
        there_N = np.array([version is not None for version in matrix.version_NE[:, e]], bool)
        status_N = np.where(part_N, "ok", np.where(answered_N, "masked", "failed"))
        status_N = np.where(there_N, status_N, "missing")
        expert = calibration.experts.get(name)
        unusable = None if expert is None or expert.usable else expert.reason
        reason = pl.Series(matrix.reason_NE[:, e].tolist(), dtype=pl.String)
        absent = reason if unusable is None else reason.fill_null(unusable)
        nothing = pl.Series([None], dtype=pl.String)

        def said(value_N: np.ndarray, answered_N: np.ndarray = answered_N) -> np.ndarray:
            return np.where(answered_N, value_N, np.nan)

        sigma_N = said(labelled.sigma_NE[:, e])
        with np.errstate(divide="ignore", invalid="ignore"):
            confidence_N = -np.log(sigma_N)
        fields[name] = {
            "age_years": numbers(said(labelled.age_NE[:, e])),
            "raw_age_years": numbers(said(matrix.age_NE[:, e])),
            "sigma_years": numbers(sigma_N),
            "raw_sigma_years": numbers(said(matrix.sigma_NE[:, e])),
            "confidence": numbers(confidence_N),
            "weight": numbers(labelled.mixture.weight_NE[:, e]),
            "status": texts(pl.Series(status_N.astype(object).tolist(), dtype=pl.String)),
            "reason": texts(nothing.zip_with(pl.Series(part_N), absent) if len(absent) else absent),
        }
    return objects(fields) if fields else pl.Series(["{}"] * len(labelled.part_NE), dtype=pl.String)


def _numbers(value_N: np.ndarray) -> pl.Series:
    """Return numbers as a column; null where not finite."""
    finite = np.where(np.isfinite(value_N), value_N, np.nan)
    return pl.Series(finite.astype(np.float32), nan_to_null=True)
