"""The gate and the mixture: several experts' ages in, one age with its variance out.

Shapes: N images, E experts. Pure NumPy.
"""

from dataclasses import dataclass

import numpy as np

from agetf_pipeline.core.errors import DataError

INVERSE_VARIANCE_TAU = 0.5
"""With mu = 0 and this tau the gate weighs by 1/sigma^2: softmax(-log sigma / 0.5)."""


@dataclass(frozen=True)
class Mixture:
    """The mixture's reading of N images.

    Attributes:
        weight_NE: float64 (N, E), rows sum to 1, 0 where an expert is masked; NaN rows where there
            is no label.
        age_N: float64 (N,), years; NaN where there is no label.
        within_N: float64 (N,), years^2, what the experts themselves are unsure of.
        between_N: float64 (N,), years^2, what the experts disagree on.
        num_experts_N: int64 (N,), experts that answered.
    """

    weight_NE: np.ndarray
    age_N: np.ndarray
    within_N: np.ndarray
    between_N: np.ndarray
    num_experts_N: np.ndarray

    @property
    def variance_years2(self) -> np.ndarray:
        """Total variance, float64 (N,): within + between."""
        return self.within_N + self.between_N

    @property
    def sigma_years(self) -> np.ndarray:
        """Root of the total variance, float64 (N,)."""
        return np.sqrt(self.variance_years2)


def gate(sigma_NE: np.ndarray, ok_NE: np.ndarray, mu_E: np.ndarray, tau: float) -> np.ndarray:
    """Return the experts' weights, float64 (N, E): softmax((c - mu)/tau) with c = -log sigma.

    Experts that are not ok are masked before the softmax: they get weight 0 and take nothing from
    the others. A row without any expert is all NaN. A mu that all experts share would cancel, so
    mu is per expert.

    Args:
        sigma_NE: float (N, E), years, > 0 where ok.
        ok_NE: bool (N, E).
        mu_E: float (E,), in units of log sigma.
        tau: Temperature, > 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logit_NE = np.where(ok_NE, (-np.log(sigma_NE) - mu_E) / tau, -np.inf)
        raw_NE = np.exp(logit_NE - logit_NE.max(axis=1, keepdims=True, initial=-np.inf))
        return raw_NE / raw_NE.sum(axis=1, keepdims=True)


def mix(
    age_NE: np.ndarray,
    sigma_NE: np.ndarray,
    ok_NE: np.ndarray,
    mu_E: np.ndarray,
    tau: float = INVERSE_VARIANCE_TAU,
    min_experts: int = 2,
) -> Mixture:
    """Mix the experts' ages.

    age = sum w_i age_i; variance = sum w_i sigma_i^2 (within) + sum w_i (age_i - age)^2 (between),
    the law of total variance. The order of the experts changes nothing.

    Args:
        age_NE: float (N, E), years, bias-corrected; anything where not ok.
        sigma_NE: float (N, E), years, calibrated, > 0; anything where not ok.
        ok_NE: bool (N, E), whether an expert answered. A non-finite age, or a sigma that is not
            a finite number above 0, counts as no answer.
        mu_E: float (E,), the gate's bias of each expert.
        tau: The gate's temperature, > 0.
        min_experts: With fewer answers there is no label (NaN), never a made-up one.

    Raises:
        DataError: The shapes do not fit, or tau is not above 0.
    """
    if not (age_NE.shape == sigma_NE.shape == ok_NE.shape) or age_NE.shape[1:] != mu_E.shape:
        raise DataError(
            f"Expected ages, sigmas and answers of one shape (N, E) and mu of shape (E,); found "
            f"{age_NE.shape}, {sigma_NE.shape}, {ok_NE.shape} and {mu_E.shape}."
        )
    if not tau > 0:
        raise DataError(f"Expected a temperature above 0; found {tau}. Fit the calibration again.")
    age_NE, sigma_NE = age_NE.astype(np.float64), sigma_NE.astype(np.float64)
    ok_NE = ok_NE & np.isfinite(age_NE) & np.isfinite(sigma_NE) & (sigma_NE > 0)
    num_N = ok_NE.sum(axis=1)
    weight_NE = gate(sigma_NE, ok_NE, mu_E, tau)
    weight_NE[num_N < max(1, min_experts)] = np.nan
    # Masked experts hold NaN: 0 * NaN would poison the sums.
    age_NE, sigma_NE = np.where(ok_NE, age_NE, 0.0), np.where(ok_NE, sigma_NE, 0.0)
    age_N = (weight_NE * age_NE).sum(axis=1)
    within_N = (weight_NE * sigma_NE**2).sum(axis=1)
    between_N = (weight_NE * (age_NE - age_N[:, None]) ** 2).sum(axis=1)
    return Mixture(weight_NE, age_N, within_N, between_N, num_N)
