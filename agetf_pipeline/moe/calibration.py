"""What the mixture knows of its experts, as a file: bias, honesty, trust, and interval width.

`agetf_pipeline.moe.fitting` makes one from labelled images; here it is stored and applied.
Shapes: N images, E experts.
"""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from agetf_pipeline.config.relabel import RelabelConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.hashing import canonical_json, hash_bytes
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.moe.conformal import MAX_AGE_YEARS, group_interval
from agetf_pipeline.moe.mixture import INVERSE_VARIANCE_TAU, Mixture, mix

MIN_SIGMA_YEARS = 0.3
"""Floor of a calibrated sigma: nobody knows an age better than the year that it is written in
(a year's uniform spread is 1/sqrt(12))."""
MAX_SIGMA_YEARS = 40.0

SCORE_LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""0.05 to 0.95."""
_ADDED_LATER = ("group_conformal", "score_quantiles")
"""Fields that older files lack: left out of file and version where they are null, so that those
files keep their version."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ExpertCalibration(_Frozen):
    """One expert: what corrects its ages and its sigmas, and how much the gate trusts it.

    The corrected age is an interpolation over the knots; log sigma' = offset + slope log sigma.
    `usable` is false where it answered too few calibration images to be trusted with a weight; it
    is then masked like an expert that did not answer, and `reason` says so.
    """

    model_version: str
    num_images: int
    usable: bool = True
    reason: str | None = None
    knots_in_years: tuple[float, ...] = (0.0, 100.0)
    knots_out_years: tuple[float, ...] = (0.0, 100.0)
    log_sigma_offset: float = 0.0
    log_sigma_slope: float = 1.0
    mu: float = 0.0


class GroupConformal(_Frozen):
    """The interval's quantiles of |true age - age| / sigma per group of the age that is asked for.

    `level` is the share of the true ages of each single group that its quantile holds: a little
    below the interval's level, since the hull over groups holds more (see `conformal`).
    """

    level: float
    quantiles: tuple[float, ...]

    @field_validator("quantiles")
    @classmethod
    def _one_per_group(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(value) != len(AGE_GROUPS):
            raise ValueError(f"expected {len(AGE_GROUPS)} quantiles, one per group: {len(value)}")
        return value


class Calibration(_Frozen):
    """The mixture's parameters. Uncalibrated, every expert is taken at its word.

    `conformal_quantile` is the one for all images; intervals use `group_conformal` where there is
    one. `score_quantiles` are those of |true age - age| / sigma at `SCORE_LEVELS`.
    """

    calibrated: bool
    reason: str | None = None
    experts: dict[str, ExpertCalibration] = {}
    tau: float = INVERSE_VARIANCE_TAU
    interval_level: float = 0.9
    conformal_quantile: float | None = None
    group_conformal: GroupConformal | None = None
    score_quantiles: tuple[float, ...] | None = None
    num_images: int = 0
    num_identities: int = 0
    trained_on: str = "workspace corpus"

    @property
    def version(self) -> str:
        """Hash of the content, 16 hexadecimal digits."""
        return hash_bytes(canonical_json(self._content()).encode())[:16]

    def save(self, path: Path) -> None:
        """Write as JSON, with the version beside the content, atomically."""
        write_json(path, {**self._content(), "version": self.version})

    def _content(self) -> dict[str, Any]:
        content = self.model_dump(mode="json")
        absent = {name for name in _ADDED_LATER if content[name] is None}
        return {name: value for name, value in content.items() if name not in absent}


def uncalibrated(reason: str, interval_level: float) -> Calibration:
    """Return the calibration that changes nothing: inverse-variance weights, Gaussian intervals."""
    return Calibration(calibrated=False, reason=reason, interval_level=interval_level)


def calibration_path(config: RelabelConfig, workspace: Workspace) -> Path:
    """Return the calibration's file: the one that the config names, or the workspace's."""
    if config.calibration_path is not None:
        return workspace.root / config.calibration_path
    return workspace.models / "moe" / "calibration.json"


def load_calibration(path: Path) -> Calibration:
    """Read a calibration.

    Raises:
        DataError: The file is absent, is not a calibration, or was changed by hand.
    """
    if not path.is_file():
        raise DataError(
            f"Expected a calibration of the mixture at {path}; found nothing. Run the stage "
            "'relabel', or give relabel.calibration_path."
        )
    try:
        values = read_json(path)
        version = values.pop("version", None)
        calibration = Calibration.model_validate(values)
    except (ValueError, TypeError, AttributeError, ValidationError) as error:
        raise DataError(
            f"Expected a calibration of the mixture in {path}; found: {error}. Delete it and run "
            "the stage 'relabel' again."
        ) from error
    if version != calibration.version:
        raise DataError(
            f"Expected the content of {path} to have version {calibration.version}; it says "
            f"{version}. It was changed after it was fitted: run the stage 'relabel' again."
        )
    return calibration


def correct_age(age_N: np.ndarray, expert: ExpertCalibration) -> np.ndarray:
    """Return one expert's ages without its bias, float64 (N,), 0 to 100 years; NaN stays NaN."""
    known = np.isfinite(age_N)
    corrected = np.interp(age_N[known], expert.knots_in_years, expert.knots_out_years)
    result = np.full(age_N.shape, np.nan)
    result[known] = np.clip(corrected, 0.0, 100.0)
    return result


def scale_sigma(sigma_N: np.ndarray, expert: ExpertCalibration) -> np.ndarray:
    """Return one expert's sigmas on the scale of its real errors, float64 (N,), years."""
    positive = np.isfinite(sigma_N) & (sigma_N > 0)
    log_sigma_N = np.log(np.where(positive, sigma_N, np.nan).astype(np.float64))
    scaled = np.exp(expert.log_sigma_offset + expert.log_sigma_slope * log_sigma_N)
    return np.clip(scaled, MIN_SIGMA_YEARS, MAX_SIGMA_YEARS)


def apply_calibration(
    names: list[str],
    age_NE: np.ndarray,
    sigma_NE: np.ndarray,
    ok_NE: np.ndarray,
    calibration: Calibration,
    min_experts: int,
) -> tuple[Mixture, np.ndarray, np.ndarray, np.ndarray]:
    """Correct every expert and mix them.

    Args:
        names: The E experts, in the order of the columns.
        age_NE: float (N, E), years, as the experts gave them.
        sigma_NE: float (N, E), years, as the experts gave them.
        ok_NE: bool (N, E), whether they answered.
        calibration: The mixture's parameters.
        min_experts: With fewer answers there is no label.

    Returns:
        The mixture; the corrected ages (N, E); the calibrated sigmas (N, E); and bool (N, E),
        whether an expert took part.
    """
    taken = [
        calibration.experts.get(name, ExpertCalibration(model_version="", num_images=0))
        for name in names
    ]
    columns = range(len(names))
    corrected_NE, scaled_NE = np.full(age_NE.shape, np.nan), np.full(age_NE.shape, np.nan)
    for e in columns:
        corrected_NE[:, e] = correct_age(age_NE[:, e].astype(np.float64), taken[e])
        scaled_NE[:, e] = scale_sigma(sigma_NE[:, e], taken[e])
    usable_E = np.array([expert.usable for expert in taken], dtype=bool)
    part_NE = ok_NE & usable_E & np.isfinite(corrected_NE) & np.isfinite(scaled_NE)
    mu_E = np.array([expert.mu for expert in taken], dtype=np.float64)
    mixture = mix(corrected_NE, scaled_NE, part_NE, mu_E, calibration.tau, min_experts)
    return mixture, corrected_NE, scaled_NE, part_NE


def interval(
    age_N: np.ndarray, sigma_N: np.ndarray, calibration: Calibration
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper ends of the age interval, float64 (N,), within 0 to 120 years.

    Calibrated: every age y with |y - age| <= q sigma, q being the conformal quantile of y's own
    age group, and the ages between them (see `conformal`). Without quantiles per group: age -+ q
    sigma with one quantile for all. Uncalibrated: the Gaussian interval of the experts' own
    claims, which nobody has checked.

    Source: locally weighted split conformal prediction, Lei et al. 2018, section 5.2; for the
    quantiles per group see `conformal`.
    """
    if calibration.group_conformal is not None:
        return group_interval(age_N, sigma_N, np.array(calibration.group_conformal.quantiles))

    q = calibration.conformal_quantile
    if q is None:
        from scipy.stats import norm  # slow to load, and not needed where there is a quantile

        q = float(norm.ppf(0.5 + calibration.interval_level / 2))
    low_N = np.maximum(age_N - q * sigma_N, 0.0)
    return low_N, np.minimum(age_N + q * sigma_N, MAX_AGE_YEARS)
