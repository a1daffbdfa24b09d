"""Age groups and anchors: the vocabulary of ages that every table shares."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

AGE_GROUPS: tuple[str, ...] = (
    "0-2", "3-6", "7-9", "10-14", "15-19", "20-29", "30-39", "40-49", "50-69", "70-120",
)  # fmt: skip
"""The groups of FFHQ-Aging, as its CSV spells them."""

_LOWER_YEARS: tuple[int, ...] = tuple(int(group.split("-")[0]) for group in AGE_GROUPS)


def group_of(age_years: float) -> str:
    """Return the age group of an age in years (whole years count: 2.9 is in `0-2`)."""
    if not math.isfinite(age_years) or age_years < 0:
        raise ValueError(f"age must be a finite number >= 0, got {age_years}")
    index = max(i for i, lower in enumerate(_LOWER_YEARS) if age_years >= lower)
    return AGE_GROUPS[index]


def age_group(column: str) -> "pl.Expr":
    """Return the Polars expression for `group_of` of a column of ages; null where there is none.

    Ages that `group_of` refuses, which no table holds, are null here.
    """
    import polars as pl

    age = pl.col(column)
    found = pl.when(age.is_finite() & (age >= _LOWER_YEARS[-1])).then(pl.lit(AGE_GROUPS[-1]))
    for lower, group in zip(_LOWER_YEARS[-2::-1], AGE_GROUPS[-2::-1], strict=True):
        found = found.when(age.is_finite() & (age >= lower)).then(pl.lit(group))
    return found.otherwise(None)


def group_bounds(group: str) -> tuple[float, float]:
    """Return the lowest age of a group and the lowest above it, in years (101 above the last)."""
    index = AGE_GROUPS.index(group)
    upper = _LOWER_YEARS[index + 1] if index + 1 < len(_LOWER_YEARS) else 101
    return float(_LOWER_YEARS[index]), float(upper)


def group_midpoint(group: str) -> float:
    """Return the middle of a group in years; of `70-120` the middle of 70 and 101."""
    lower, upper = group_bounds(group)
    return (lower + upper) / 2
