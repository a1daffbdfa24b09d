"""Predictions laid out as arrays: an image a row, an expert a column.

Shapes: N images, E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

_NO_NUMBERS = "the prediction holds no age or no sigma"


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


def expert_matrix(
    predictions: pl.DataFrame, image_ids: list[str], names: Sequence[str] | None = None
) -> ExpertMatrix:
    """Lay predictions out as arrays, matched by image and expert, never by the order of rows.

    Args:
        predictions: Rows of table `predictions`, of one or more experts.
        image_ids: The N images, in the order wanted.
        names: The E experts; None for those that `predictions` holds, sorted.

    Returns:
        The arrays. An expert without a row for an image did not answer: "no prediction".
    """
    names = sorted(predictions["expert"].unique().to_list()) if names is None else list(names)
    shape = (len(image_ids), len(names))
    age_NE, sigma_NE = np.full(shape, np.nan), np.full(shape, np.nan)
    ok_NE = np.zeros(shape, dtype=bool)
    version_NE = np.full(shape, None, dtype=object)
    reason_NE = np.full(shape, None, dtype=object)
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
        ok_NE[:, e] = (rows["status"] == "ok").fill_null(False).to_numpy() & good
        said = pl.when(pl.col("reason") != "").then(pl.col("reason"))
        reason = rows.with_columns(ok=pl.Series(ok_NE[:, e])).select(
            pl.when(~pl.col("ok")).then(
                pl.when(pl.col("status").is_null())
                .then(pl.lit("no prediction"))
                .otherwise(pl.coalesce(said, pl.lit(_NO_NUMBERS)))
            )
        )
        reason_NE[:, e] = reason.to_series().to_list()
    return ExpertMatrix(names, age_NE, sigma_NE, ok_NE, version_NE, reason_NE)
