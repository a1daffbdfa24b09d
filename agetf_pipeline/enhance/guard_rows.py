"""Rows of the table `enhanced_ages`: what is known of an image already, and what is added to it.

Each measure is kept by the versions that it depends on: an age by the label's, sharpness by the
guards', identity by the model's. So each is measured once, whatever else changes.
"""

import polars as pl

from agetf_pipeline.data.schemas import ENHANCED_AGES
from agetf_pipeline.enhance.guard_measures import NO_MODEL, UNIFORM, PixelMeasures


def with_known(chunk: pl.DataFrame, stored: pl.DataFrame, has_model: bool) -> pl.DataFrame:
    """Add what was measured before by the same versions, and what holds of untouched copies.

    Args:
        chunk: Wanted rows: keys, versions, `age_before_years`, `touched`.
        stored: Rows of table `enhanced_ages` as they were.
        has_model: Whether there is an identity model.
    """
    output = ["image_id", "enhanced_sha256"]
    parts = (
        ([*output, "label_version"], ["age_after_years"]),
        ([*output, "guards_version"], ["sharpness_ratio"]),
        (
            [*output, "guards_version", "identity_version"],
            ["identity_similarity", "identity_alignment"],
        ),
    )
    for key, values in parts:
        chunk = chunk.join(stored.select(*key, *values), on=key, how="left", maintain_order="left")
    # The pixels of an untouched copy are those of the original.
    same = {"age_after_years": pl.col("age_before_years"), "sharpness_ratio": pl.lit(1.0)}
    if has_model:
        same["identity_similarity"] = pl.lit(1.0)
    return chunk.with_columns(
        pl.when("touched").then(pl.col(name)).otherwise(value).cast(pl.Float32).alias(name)
        for name, value in same.items()
    )


def is_measured() -> pl.Expr:
    """Rows whose pictures were measured: sharpness, and identity where there is a model."""
    identity = pl.col("identity_version").is_null() | pl.col("identity_similarity").is_not_null()
    return identity & pl.col("sharpness_ratio").is_not_null()


def measured_row(
    known: dict,
    age: tuple[float | None, str | None] | None,
    pixels: PixelMeasures | None,
) -> dict:
    """Return a row of the table without its verdict; what is still null says why.

    Args:
        known: What is wanted of the row and was known of it, from `with_known`.
        age: The age after, or why there is none; None where it was not read now.
        pixels: What the pictures gave; None where they were not measured now.
    """
    row = {name: known.get(name) for name in ENHANCED_AGES.schema.names}
    row |= {"flags": [], "flagged": False}
    nulls = []
    if age is not None:
        row["age_after_years"] = age[0]
    if row["age_before_years"] is None:
        nulls.append(f"no age before: {known['why_no_age'] or 'the mixture gave none'}")
    elif row["age_after_years"] is None:
        nulls.append(f"no age after: {(age and age[1]) or 'the mixture gave none'}")
    else:
        row["age_shift_years"] = row["age_after_years"] - row["age_before_years"]
    if pixels is not None:
        for name in ("sharpness_ratio", "identity_similarity", "identity_alignment"):
            row[name] = getattr(pixels, name)
    problem = pixels.problem if pixels is not None else None
    if row["identity_similarity"] is None:
        why = problem if row["identity_version"] else NO_MODEL
        nulls.append(f"no identity similarity: {why}")
    if row["sharpness_ratio"] is None:
        nulls.append(f"no sharpness ratio: {problem or UNIFORM}")
    if row["colourfulness_change"] is None:
        nulls.append("no change of colourfulness: the table 'enhanced' does not have it")
    return row | {"not_compared": "; ".join(nulls) or None}
