"""Fitting the mixture's calibration on images with a known age, and measuring it honestly.

Order: monotone bias correction per expert; sigma per expert on the errors that are left; gate (mu
per expert, one tau); conformal quantiles. Each step sees only out-of-fold results of the one
before, the folds being whole identities, so that no step learns from errors that an earlier one
has already made small. The quantiles are cross-fitted: every calibration image is scored by a
calibration fitted without its identity's fold. Two halves would give the same promise from half
of the few hundred images that there are.

Shapes: N images, E experts.
"""

import hashlib
from dataclasses import dataclass, fields, replace

import numpy as np

from agetf_pipeline.moe.calibration import (
    SCORE_LEVELS,
    Calibration,
    ExpertCalibration,
    GroupConformal,
    apply_calibration,
    correct_age,
    interval,
    scale_sigma,
    uncalibrated,
)
from agetf_pipeline.moe.conformal import Scored, conformal_quantile, fit_group_quantiles
from agetf_pipeline.moe.parameters import fit_correction, fit_gate, fit_sigma

NUM_FOLDS = 5
MIN_IDENTITIES = 3
"""One held out, and two to hold out of each other."""
MIN_EXPERT_IMAGES = 20
"""An expert that answered fewer calibration images (and fewer than half) gets no weight."""


@dataclass(frozen=True)
class CalibrationData:
    """Labelled images with what the experts read.

    Attributes:
        names: The E experts.
        model_versions: Their versions.
        age_NE: float (N, E), years, NaN where they failed.
        sigma_NE: float (N, E), years.
        ok_NE: bool (N, E).
        true_age_N: float (N,), years.
        identity_N: str (N,), who is in the picture.
    """

    names: list[str]
    model_versions: list[str]
    age_NE: np.ndarray
    sigma_NE: np.ndarray
    ok_NE: np.ndarray
    true_age_N: np.ndarray
    identity_N: np.ndarray

    def take(self, chosen_N: np.ndarray) -> "CalibrationData":
        """Return the images that a mask (bool) or index array chooses."""
        return CalibrationData(
            self.names,
            self.model_versions,
            self.age_NE[chosen_N],
            self.sigma_NE[chosen_N],
            self.ok_NE[chosen_N],
            self.true_age_N[chosen_N],
            self.identity_N[chosen_N],
        )


@dataclass(frozen=True)
class CrossFitted:
    """Images of known age as read by calibrations that never saw their identity.

    Attributes:
        true_age_N: float (N,), years.
        age_N: float (N,), years, of the mixture; NaN without a label.
        sigma_N: float (N,), years.
        low_N: float (N,), lower interval end, its quantiles from other identities.
        high_N: float (N,), upper interval end.
        score_N: float (N,), |true age - age| / sigma.
        expert_age_NE: float (N, E), each expert alone, bias-corrected; NaN where it takes no part.
        expert_sigma_NE: float (N, E), calibrated, years; NaN where it takes no part.
        weight_NE: float (N, E), the gate's weights, 0 where an expert is masked; NaN without a
            label.
        fold_N: int64 (N,), which images were held out together.
    """

    true_age_N: np.ndarray
    age_N: np.ndarray
    sigma_N: np.ndarray
    low_N: np.ndarray
    high_N: np.ndarray
    score_N: np.ndarray
    expert_age_NE: np.ndarray
    expert_sigma_NE: np.ndarray
    weight_NE: np.ndarray
    fold_N: np.ndarray

    def take(self, chosen_N: np.ndarray) -> "CrossFitted":
        """Return the images that a mask (bool) or index array chooses."""
        return CrossFitted(
            **{item.name: getattr(self, item.name)[chosen_N] for item in fields(self)}
        )


def fit_calibration(
    data: CalibrationData,
    min_experts: int,
    interval_level: float,
    min_images: int,
    seed: int,
) -> tuple[Calibration, CrossFitted | None]:
    """Fit a calibration; without enough labelled images return the one that changes nothing.

    Args:
        data: Labelled images, of identities that trained no expert.
        min_experts: Of a label.
        interval_level: Share of true ages that the interval shall hold, 0 to 1.
        min_images: With fewer images nothing is fitted.
        seed: Of the folds.

    Returns:
        The calibration, and the cross-fitted readings (None where nothing was fitted).
    """
    num_images, num_identities = len(data.true_age_N), len(set(data.identity_N.tolist()))
    if num_images < min_images or num_identities < MIN_IDENTITIES:
        return uncalibrated(
            f"{num_images} images of {num_identities} subjects with a known age are set apart for "
            f"calibration; at least {min_images} of {MIN_IDENTITIES} subjects are needed",
            interval_level,
        ), None
    fold_N = identity_folds(data.identity_N, seed)
    calibration = _fit_parameters(data, min_experts, seed)
    read = _read_crossfitted(data, fold_N, min_experts, seed)
    low_N, high_N = crossfitted_interval(read, interval_level)
    fitted = _with_interval(calibration, _scored(read), interval_level)
    return fitted, replace(read, low_N=low_N, high_N=high_N)


def crossfitted_interval(read: CrossFitted, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return interval ends of every image by quantiles of the other folds, float64 (N,), years.

    Args:
        read: Images of two folds or more.
        level: Share of true ages that the intervals shall hold, 0 to 1.
    """
    scored = _scored(read)
    low_N, high_N = np.full(len(read.age_N), np.nan), np.full(len(read.age_N), np.nan)
    for fold in np.unique(read.fold_N):
        held = read.fold_N == fold
        others = _with_interval(Calibration(calibrated=True), scored.take(~held), level)
        low_N[held], high_N[held] = interval(read.age_N[held], read.sigma_N[held], others)
    return low_N, high_N


def read_images(data: CalibrationData, calibration: Calibration, min_experts: int) -> CrossFitted:
    """Read labelled images with a calibration that has not seen them.

    Args:
        data: Labelled images, of identities that neither trained an expert nor calibrated.
        calibration: The mixture's parameters.
        min_experts: Of a label.
    """
    mixture, corrected_NE, scaled_NE, part_NE = apply_calibration(
        data.names, data.age_NE, data.sigma_NE, data.ok_NE, calibration, min_experts
    )
    low_N, high_N = interval(mixture.age_N, mixture.sigma_years, calibration)
    return CrossFitted(
        true_age_N=data.true_age_N,
        age_N=mixture.age_N,
        sigma_N=mixture.sigma_years,
        low_N=low_N,
        high_N=high_N,
        score_N=np.abs(data.true_age_N - mixture.age_N) / mixture.sigma_years,
        expert_age_NE=np.where(part_NE, corrected_NE, np.nan),
        expert_sigma_NE=np.where(part_NE, scaled_NE, np.nan),
        weight_NE=mixture.weight_NE,
        fold_N=np.zeros(len(data.true_age_N), dtype=np.int64),
    )


def _read_crossfitted(
    data: CalibrationData, fold_N: np.ndarray, min_experts: int, seed: int
) -> CrossFitted:
    """Read every image with a calibration fitted without its fold; the intervals are still bare."""
    indices, parts = [], []
    for fold in np.unique(fold_N):
        held = fold_N == fold
        others = _fit_parameters(data.take(~held), min_experts, seed)
        indices.append(np.flatnonzero(held))
        parts.append(read_images(data.take(held), others, min_experts))
    order = np.argsort(np.concatenate(indices))
    joined = {
        item.name: np.concatenate([getattr(part, item.name) for part in parts])[order]
        for item in fields(CrossFitted)
    }
    return CrossFitted(**{**joined, "fold_N": fold_N})


def _scored(read: CrossFitted) -> Scored:
    return Scored(read.true_age_N, read.age_N, read.sigma_N, read.fold_N)


def _score_quantiles(score_N: np.ndarray) -> tuple[float, ...] | None:
    """Return the quantiles of the known scores at `SCORE_LEVELS`; None where there is none."""
    known = score_N[np.isfinite(score_N)]
    if not len(known):
        return None
    return tuple(round(float(value), 9) for value in np.quantile(known, SCORE_LEVELS))


def _with_interval(calibration: Calibration, scored: Scored, level: float) -> Calibration:
    """Return a calibration with the quantiles that these scores give."""
    found = fit_group_quantiles(scored, level)
    group = None
    if found is not None:
        group = GroupConformal(
            level=round(found[0], 9), quantiles=tuple(round(float(q), 9) for q in found[1])
        )
    return calibration.model_copy(
        update={
            "interval_level": level,
            "conformal_quantile": conformal_quantile(scored.scores(), level),
            "score_quantiles": _score_quantiles(scored.scores()),
            "group_conformal": group,
        }
    )


def identity_folds(identity_N: np.ndarray, seed: int) -> np.ndarray:
    """Return each image's fold, int64 (N,): whole identities, dealt out evenly, by name alone."""
    names = sorted(
        set(identity_N.tolist()),
        key=lambda name: hashlib.sha256(f"{seed}:fold:{name}".encode()).digest(),
    )
    fold_of = {name: position % NUM_FOLDS for position, name in enumerate(names)}
    return np.array([fold_of[name] for name in identity_N.tolist()], dtype=np.int64)


def _fit_parameters(data: CalibrationData, min_experts: int, seed: int) -> Calibration:
    """Fit everything but the conformal quantile on `data`."""
    fold_N = identity_folds(data.identity_N, seed)
    experts: dict[str, ExpertCalibration] = {}
    corrected_NE = np.full(data.age_NE.shape, np.nan)
    scaled_NE = np.full(data.age_NE.shape, np.nan)
    for e, name in enumerate(data.names):
        ok_N = data.ok_NE[:, e]
        expert = _fit_expert(data, e, fold_N, corrected_NE)
        experts[name] = expert
        scaled_NE[ok_N, e] = scale_sigma(data.sigma_NE[ok_N, e], expert)
    usable_E = np.array([experts[name].usable for name in data.names], dtype=bool)
    mu_E, tau = fit_gate(
        corrected_NE, scaled_NE, data.ok_NE & usable_E, data.true_age_N, min_experts
    )
    return Calibration(
        calibrated=True,
        experts={
            name: experts[name].model_copy(update={"mu": round(float(mu), 9)})
            for name, mu in zip(data.names, mu_E, strict=True)
        },
        tau=round(tau, 9),
        num_images=len(data.true_age_N),
        num_identities=len(set(data.identity_N.tolist())),
    )


def _fit_expert(
    data: CalibrationData, e: int, fold_N: np.ndarray, corrected_NE: np.ndarray
) -> ExpertCalibration:
    """Fit one expert's correction and sigma; writes its out-of-fold ages into `corrected_NE`."""
    ok_N = data.ok_NE[:, e]
    num_ok = int(ok_N.sum())
    basic = ExpertCalibration(model_version=data.model_versions[e], num_images=num_ok)
    needed = min(MIN_EXPERT_IMAGES, (len(ok_N) + 1) // 2)
    if num_ok < max(2, needed):
        return basic.model_copy(
            update={
                "usable": False,
                "reason": f"answered {num_ok} of {len(ok_N)} calibration images, not {needed}",
            }
        )
    age_N, truth_N = data.age_NE[:, e].astype(np.float64), data.true_age_N
    for fold in np.unique(fold_N):
        seen, held = ok_N & (fold_N != fold), ok_N & (fold_N == fold)
        if seen.any():
            corrected_NE[held, e] = correct_age(
                age_N[held], _with_knots(basic, age_N[seen], truth_N[seen])
            )
    known = ok_N & np.isfinite(corrected_NE[:, e])
    offset, slope = 0.0, 1.0
    if known.any():
        offset, slope = fit_sigma(
            data.sigma_NE[known, e].astype(np.float64), (corrected_NE[:, e] - truth_N)[known]
        )
    return _with_knots(basic, age_N[ok_N], truth_N[ok_N]).model_copy(
        update={"log_sigma_offset": round(offset, 9), "log_sigma_slope": round(slope, 9)}
    )


def _with_knots(
    expert: ExpertCalibration, age_N: np.ndarray, truth_N: np.ndarray
) -> ExpertCalibration:
    knots_in, knots_out = fit_correction(age_N, truth_N)
    return expert.model_copy(
        update={
            "knots_in_years": tuple(round(float(value), 6) for value in knots_in),
            "knots_out_years": tuple(round(float(value), 6) for value in knots_out),
        }
    )
