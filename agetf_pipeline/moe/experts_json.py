"""Every expert's part in a label as JSON text, for many images at once: a column at a time.

The bytes are those of `json.dumps` with sorted keys over values rounded to four decimals; a dict an
image would take ten times as long. Shapes: N images.
"""

import json
from collections.abc import Mapping

import numpy as np
import polars as pl

_DECIMALS = 4
_SCALE = 10**_DECIMALS
_PLAIN_BELOW = 1e15
"""Above, Python spells numbers with an exponent."""


def rounded(value_N: np.ndarray) -> np.ndarray:
    """Return `round(value, 4)` of each, float64 (N,); not finite stays so.

    NumPy's own rounding multiplies first, and errs where that lands beside a half: those few are
    left to Python.
    """
    value_N = np.asarray(value_N, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        found_N = value_N.round(_DECIMALS)
        near_N = np.abs(np.abs(value_N * _SCALE % 1.0) - 0.5) < 1e-6
    for n in np.flatnonzero(near_N | (np.abs(value_N) >= _PLAIN_BELOW / _SCALE)):
        found_N[n] = round(float(value_N[n]), _DECIMALS)
    return found_N


def numbers(value_N: np.ndarray) -> pl.Series:
    """Return numbers as JSON spells them, rounded to four decimals; `null` where not finite."""
    value_N = rounded(value_N)
    known_N = np.isfinite(value_N)
    text = pl.Series(np.where(known_N, value_N, 0.0)).cast(pl.String)
    odd_N = known_N & (np.abs(value_N) >= _PLAIN_BELOW)
    if odd_N.any():
        spelled = [repr(float(value)) for value in value_N[odd_N]]
        text = text.scatter(np.flatnonzero(odd_N), spelled)
    return text.zip_with(pl.Series(known_N), pl.Series(["null"]))


def texts(values: pl.Series) -> pl.Series:
    """Return strings as JSON spells them, `null` for null; each is spelled once."""
    found = values.unique().drop_nulls().to_list()
    spelled = values.replace_strict(
        found, [json.dumps(text) for text in found], return_dtype=pl.String
    )
    return spelled.fill_null("null")


def objects(fields: Mapping[str, Mapping[str, pl.Series]]) -> pl.Series:
    """Return a JSON object an image, of an object each: `{"outer": {"inner": value}}`.

    Args:
        fields: By outer and inner name: the values as JSON text, N each.
    """
    parts: list[pl.Expr] = []
    columns: dict[str, pl.Series] = {}
    text = "{"
    for outer in sorted(fields):
        text += ", " if columns else ""
        text += f"{json.dumps(outer)}: {{"
        for place, inner in enumerate(sorted(fields[outer])):
            text += f"{', ' if place else ''}{json.dumps(inner)}: "
            name = f"{len(columns)}"
            columns[name] = fields[outer][inner]
            parts += [pl.lit(text), pl.col(name)]
            text = ""
        text += "}"
    parts.append(pl.lit(text + "}"))
    return pl.DataFrame(columns).select(pl.concat_str(parts)).to_series()
