"""The guards after enhancement: what of a picture must have stayed, and whether it did.

`age`: the mixture reads about the same age. `identity`: an embedder finds the same person.
`sharpness`: the output is not blurrier than the original at the same size. `colour`: a colourised
picture gained colour, any other kept its colourfulness.

What was measured and the verdict on it are apart: `judge` needs nothing but the measured columns of
the table `enhanced_ages` and the thresholds, so thresholds move without any network running again.
What could not be measured is null and is never flagged; the column `not_compared` says why.

The values stand in the table alone. An image's sidecar is written before the guards run, by the
stage that enhances, and a stage never edits another's files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
import polars as pl

from agetf_pipeline.config.enhance import GuardName, RecheckConfig
from agetf_pipeline.enhance.apply import bring_to_size
from agetf_pipeline.enhance.measures import sharpness

GUARDS_VERSION = "1"
"""Raised when what is measured changes; verdicts are made anew in any case."""

GUARDS: tuple[GuardName, ...] = get_args(GuardName)
VALUE_COLUMNS: dict[GuardName, str] = {
    "age": "age_shift_years",
    "identity": "identity_similarity",
    "sharpness": "sharpness_ratio",
    "colour": "colourfulness_change",
}


@dataclass(frozen=True)
class Finding:
    """What a guard has against an image.

    Attributes:
        guard: Its name.
        severity: How far beyond the threshold, 1 at it; to rank images, comparable only roughly
            between guards.
        reason: For a person.
    """

    guard: GuardName
    severity: float
    reason: str


def judge(measured: pl.DataFrame, limits: RecheckConfig) -> pl.DataFrame:
    """Return verdicts on measured rows: `flags`, `flagged`, `reason` and `severity`, row by row.

    Args:
        measured: The measured columns of table `enhanced_ages`, null where not known.
        limits: The thresholds.
    """
    rows = [find(row, limits) for row in measured.iter_rows(named=True)]
    return pl.DataFrame(
        {
            "flags": [[finding.guard for finding in found] for found in rows],
            "flagged": [bool(found) for found in rows],
            "reason": ["; ".join(finding.reason for finding in found) or None for found in rows],
            "severity": [max((finding.severity for finding in found), default=0) for found in rows],
        },
        schema={
            "flags": pl.List(pl.String),
            "flagged": pl.Boolean,
            "reason": pl.String,
            "severity": pl.Float64,
        },
    )


def find(row: dict, limits: RecheckConfig) -> list[Finding]:
    """Return what the guards have against one image, in the order of `GUARDS`.

    Args:
        row: The measured values by column name; null values are not judged.
        limits: The thresholds.
    """
    checks: dict[GuardName, Callable[[float], Finding | None]] = {
        "age": lambda shift: _age(shift, limits.max_age_shift_years),
        "identity": lambda cosine: _identity(cosine, limits.min_identity_similarity),
        "sharpness": lambda ratio: _sharpness(ratio, limits.min_sharpness_ratio),
        "colour": lambda change: (
            _gained(change, limits.min_colourfulness_gain)
            if row["colourised"]
            else _kept(change, limits.max_colourfulness_change)
        ),
    }
    values: dict[GuardName, float | None] = {guard: row[VALUE_COLUMNS[guard]] for guard in GUARDS}
    found = [checks[guard](value) for guard, value in values.items() if value is not None]
    return [finding for finding in found if finding is not None]


def same_size_sharpness_ratio(original: np.ndarray, enhanced: np.ndarray) -> float | None:
    """Return the sharpness of a copy over that of its original at the copy's size.

    Sharpness per pixel falls when a picture is enlarged, whatever enlarged it: the values in the
    table `enhanced`, each at its picture's own size, cannot be divided. So the original is enlarged
    plainly (by Lanczos), which every output should at least equal.

    It may fall for a good reason: the edges of JPEG's blocks, and grain, count as sharp. On 207
    synthetic faces of 64 and 128 px that the demo's networks changed, the ratio was 1.05-1.52 where
    a small image was enlarged, 1.40-2.83 where blur was removed, 0.50-0.96 where JPEG blocks were.

    Args:
        original: uint8 (H, W, 3).
        enhanced: Its copy, uint8 (H', W', 3).

    Returns:
        The ratio; None where the original is uniform.
    """
    before = sharpness(bring_to_size(original, enhanced.shape[1], enhanced.shape[0]))
    return sharpness(enhanced) / before if before else None


def is_excluded(config: RecheckConfig) -> pl.Expr:
    """Rows whose output a guard in `recheck.exclude` flagged: it does not reach training."""
    flags = pl.col("flags")
    flagged = [flags.list.contains(guard).fill_null(False) for guard in config.excluding()]
    return pl.any_horizontal(pl.lit(False), *flagged)


def is_unjudged(config: RecheckConfig) -> pl.Expr:
    """Rows that a guard in `recheck.exclude` should have judged, but that were not compared.

    Without an identity model that guard judges nothing, and holds nothing back.
    """
    exprs = [pl.lit(False)]
    if config.excluding():
        exprs.append(pl.col("flags").is_null())  # no row: the output was never checked
    for guard in config.excluding():
        unknown = pl.col(VALUE_COLUMNS[guard]).is_null()
        if guard == "identity":
            unknown &= pl.col("identity_version").is_not_null()
        exprs.append(unknown)
    return pl.any_horizontal(exprs) & ~is_excluded(config)


def _age(shift: float, limit: float) -> Finding | None:
    if abs(shift) <= limit:
        return None
    reason = f"age: moved by {shift:+.1f} years, more than {limit:g}"
    return Finding("age", abs(shift) / limit, reason)


def _identity(cosine: float, limit: float) -> Finding | None:
    if cosine >= limit:
        return None
    reason = f"identity: similarity {cosine:.2f} to the original, less than {limit:g}"
    return Finding("identity", (1 - cosine) / max(1 - limit, 1e-3), reason)


def _sharpness(ratio: float, limit: float) -> Finding | None:
    if ratio >= limit:
        return None
    reason = f"sharpness: {ratio:.2f} times the original's at the same size, less than {limit:g}"
    return Finding("sharpness", limit / max(ratio, 1e-3), reason)


def _gained(change: float, limit: float) -> Finding | None:
    if change >= limit:
        return None
    reason = f"colour: colourised, yet colourfulness changed by {change:+.1f}, not by +{limit:g}"
    return Finding("colour", 1 + (limit - change) / max(limit, 1.0), reason)


def _kept(change: float, limit: float) -> Finding | None:
    if abs(change) <= limit:
        return None
    reason = (
        f"colour: not colourised, yet colourfulness moved by {change:+.1f}, more than {limit:g}"
    )
    return Finding("colour", abs(change) / limit, reason)
