"""Fitting the mixture's calibration on images with a known age, and measuring it honestly.

Order: monotone bias correction per expert; sigma per expert on the errors that are left; gate (mu
per expert, one tau); conformal quantile. Each step sees only out-of-fold results of the one
before, the folds being whole identities, so that no step learns from errors that an earlier one
has already made small. The quantile is cross-fitted: every calibration image is scored by a
calibration fitted without its identity's fold. Two halves would give the same promise from half
of the few hundred images that there are.

Every parameter has a prior (no correction, sigma as given, inverse-variance weights), so that few
images change little. Shapes: N images, E experts.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from agetf_pipeline.moe.calibration import (
    Calibration,
    ExpertCalibration,
    apply_calibration,
    correct_age,
    interval,
    scale_sigma,
    uncalibrated,
)
from agetf_pipeline.moe.mixture import INVERSE_VARIANCE_TAU, mix

NUM_FOLDS = 5
MIN_IDENTITIES = 3
"""One held out, and two to hold out of each other."""
MIN_EXPERT_IMAGES = 20
"""An expert that answered fewer calibration images (and fewer than half) gets no weight."""

_KNOT_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
_MIN_KNOT_GAP_YEARS = 3.0
# Standard deviations of the priors.
_SLOPE_SD = 0.5  # of a correction's slope, around 1
_BEND_SD = 0.3  # of the change of slope between neighbouring segments
_SHIFT_SD_YEARS = 20.0  # of a correction's shift
_SIGMA_SLOPE_SD = 0.3
_SIGMA_OFFSET_SD = 1.0
_MU_SD = 1.0
_TAU_SD = 0.7  # of log tau, around inverse-variance weighting


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
    """Calibration images as read by calibrations that never saw their identity's fold.

    Attributes:
        true_age_N: float (N,), years.
        age_N: float (N,), years, of the mixture; NaN without a label.
        sigma_N: float (N,), years.
        low_N: float (N,), lower interval end, its quantile from the other folds.
        high_N: float (N,), upper interval end.
        score_N: float (N,), |true age - age| / sigma.
        expert_age_NE: float (N, E), each expert alone, bias-corrected; NaN where it failed.
    """

    true_age_N: np.ndarray
    age_N: np.ndarray
    sigma_N: np.ndarray
    low_N: np.ndarray
    high_N: np.ndarray
    score_N: np.ndarray
    expert_age_NE: np.ndarray


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
    folds = np.unique(fold_N)
    parts = [_fit_parameters(data.take(fold_N != fold), min_experts, seed) for fold in folds]
    calibration = _fit_parameters(data, min_experts, seed)

    age_N, sigma_N = np.full(num_images, np.nan), np.full(num_images, np.nan)
    expert_age_NE = np.full(data.age_NE.shape, np.nan)
    for fold, part in zip(folds, parts, strict=True):
        held = fold_N == fold
        inside = data.take(held)
        mixture, corrected_NE, _, part_NE = apply_calibration(
            data.names, inside.age_NE, inside.sigma_NE, inside.ok_NE, part, min_experts
        )
        age_N[held], sigma_N[held] = mixture.age_N, mixture.sigma_years
        expert_age_NE[held] = np.where(part_NE, corrected_NE, np.nan)
    score_N = np.abs(data.true_age_N - age_N) / sigma_N

    low_N, high_N = np.full(num_images, np.nan), np.full(num_images, np.nan)
    for fold in folds:
        held = fold_N == fold
        quantile = conformal_quantile(score_N[~held], interval_level)
        others = Calibration(
            calibrated=True, conformal_quantile=quantile, interval_level=interval_level
        )
        low_N[held], high_N[held] = interval(age_N[held], sigma_N[held], others)
    fitted = calibration.model_copy(
        update={
            "interval_level": interval_level,
            "conformal_quantile": conformal_quantile(score_N, interval_level),
        }
    )
    return fitted, CrossFitted(
        data.true_age_N, age_N, sigma_N, low_N, high_N, score_N, expert_age_NE
    )


def identity_folds(identity_N: np.ndarray, seed: int) -> np.ndarray:
    """Return each image's fold, int64 (N,): whole identities, dealt out evenly, by name alone."""
    names = sorted(
        set(identity_N.tolist()),
        key=lambda name: hashlib.sha256(f"{seed}:fold:{name}".encode()).digest(),
    )
    fold_of = {name: position % NUM_FOLDS for position, name in enumerate(names)}
    return np.array([fold_of[name] for name in identity_N.tolist()], dtype=np.int64)


def conformal_quantile(score_N: np.ndarray, level: float) -> float | None:
    """Return the ceil((n+1) level)-th smallest score; None where n is too small for the level.

    Source: split conformal prediction, Lei et al. 2018, section 2.2.
    """
    scores = np.sort(score_N[np.isfinite(score_N)])
    # The tiny number keeps 0.9 * 10 = 9.000000000000002 from rounding up to 10.
    rank = int(np.ceil((len(scores) + 1) * level - 1e-9))
    return round(float(scores[rank - 1]), 9) if 1 <= rank <= len(scores) else None


def fit_correction(age_N: np.ndarray, true_age_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit a monotone piecewise-linear correction of one expert's ages.

    Least squares with slopes >= 0 and normal priors: slopes near 1, neighbouring slopes alike, so
    that ages where there is little data keep the slope of their neighbours.

    Args:
        age_N: float (N,), what the expert said, years.
        true_age_N: float (N,), years.

    Returns:
        Knots: the expert's ages and the corrected ages, rising, within 0 to 100 years.
    """
    from scipy.optimize import lsq_linear

    knots = [0.0]
    for value in [*np.quantile(age_N, _KNOT_QUANTILES), 100.0]:
        if value - knots[-1] >= _MIN_KNOT_GAP_YEARS and (value == 100.0 or 100.0 - value >= 3.0):
            knots.append(float(value))
    lower, upper = np.array(knots[:-1]), np.array(knots[1:])
    covered_NS = np.clip(age_N[:, None] - lower, 0.0, upper - lower)
    spread = max(1.0, float(np.std(true_age_N - age_N)))
    num_segments = len(lower)
    rows = [np.column_stack([np.ones(len(age_N)), covered_NS]) / spread]
    targets = [true_age_N / spread]
    rows.append(np.eye(num_segments + 1)[:1] / _SHIFT_SD_YEARS)
    targets.append(np.zeros(1))
    rows.append(np.eye(num_segments + 1)[1:] / _SLOPE_SD)
    targets.append(np.ones(num_segments) / _SLOPE_SD)
    rows.append(np.diff(np.eye(num_segments + 1)[1:], axis=0) / _BEND_SD)
    targets.append(np.zeros(num_segments - 1))
    lowest = np.r_[-np.inf, np.zeros(num_segments)]
    solved = lsq_linear(np.vstack(rows), np.concatenate(targets), bounds=(lowest, np.inf))
    out = solved.x[0] + np.r_[0.0, np.cumsum(solved.x[1:] * (upper - lower))]
    return np.array(knots), out


def fit_sigma(sigma_N: np.ndarray, error_N: np.ndarray) -> tuple[float, float]:
    """Fit log sigma' = offset + slope log sigma on the Gaussian likelihood of out-of-fold errors.

    Args:
        sigma_N: float (N,), the expert's own sigmas, years, > 0.
        error_N: float (N,), what its corrected ages are off by, years.

    Returns:
        Offset and slope (>= 0: an expert that says it is less sure is never taken as surer).
    """
    from scipy.optimize import minimize

    log_N = np.log(sigma_N)
    centre = float(log_N.mean())
    start = 0.5 * float(np.log(np.mean(error_N**2) + 1e-6))

    def loss(parameters: np.ndarray) -> float:
        level, slope = parameters
        log_scaled_N = np.clip(level + slope * (log_N - centre), -5.0, 5.0)
        nll = (0.5 * error_N**2 * np.exp(-2 * log_scaled_N) + log_scaled_N).sum()
        prior = ((level - start) / _SIGMA_OFFSET_SD) ** 2 + ((slope - 1) / _SIGMA_SLOPE_SD) ** 2
        return float(nll + 0.5 * prior)

    solved = minimize(loss, np.array([start, 1.0]), method="L-BFGS-B", bounds=[(-5, 5), (0.0, 3.0)])
    level, slope = (float(value) for value in solved.x)
    return level - slope * centre, slope


def fit_gate(
    age_NE: np.ndarray,
    sigma_NE: np.ndarray,
    ok_NE: np.ndarray,
    true_age_N: np.ndarray,
    min_experts: int,
) -> tuple[np.ndarray, float]:
    """Fit mu per expert and tau on the mixture's absolute error.

    The error is taken as Laplace, its scale that of inverse-variance weights, and smoothed near 0.
    The prior (mu 0, inverse-variance tau) decides where the data do not; it also fixes the common
    part of mu, which the softmax does not see.

    Args:
        age_NE: float (N, E), corrected out of fold.
        sigma_NE: float (N, E), calibrated.
        ok_NE: bool (N, E).
        true_age_N: float (N,).
        min_experts: Of a label.

    Returns:
        mu (E,), and tau.
    """
    from scipy.optimize import minimize

    num_experts = age_NE.shape[1]
    start = np.r_[np.zeros(num_experts), np.log(INVERSE_VARIANCE_TAU)]

    def error(parameters: np.ndarray) -> np.ndarray:
        tau = float(np.exp(parameters[-1]))
        mixture = mix(age_NE, sigma_NE, ok_NE, parameters[:-1], tau, min_experts)
        return (mixture.age_N - true_age_N)[np.isfinite(mixture.age_N)]

    first = error(start)
    if len(first) == 0:
        return start[:-1], INVERSE_VARIANCE_TAU
    scale = max(0.1, float(np.abs(first).mean()))

    def loss(parameters: np.ndarray) -> float:
        off = error(parameters) / scale
        prior = (parameters[:-1] ** 2).sum() / _MU_SD**2
        prior += ((parameters[-1] - start[-1]) / _TAU_SD) ** 2
        return float(np.sqrt(off**2 + 0.01).sum() + 0.5 * prior)

    bounds = [(-5.0, 5.0)] * num_experts + [(np.log(0.05), np.log(10.0))]
    solved = minimize(loss, start, method="L-BFGS-B", bounds=bounds)
    best = solved.x if solved.fun <= loss(start) else start
    return best[:-1], float(np.exp(best[-1]))


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
