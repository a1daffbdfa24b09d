"""The fits that a calibration is made of: an expert's correction, its sigma, and the gate.

Every parameter has a prior (no correction, sigma as given, inverse-variance weights), so that few
images change little. Shapes: N images, E experts.
"""

import numpy as np

from agetf_pipeline.moe.mixture import INVERSE_VARIANCE_TAU, mix

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
