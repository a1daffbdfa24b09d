"""Which faces are evaluated: those of people whom training did not see."""

import numpy as np
import polars as pl

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.images import load_faces
from agetf_pipeline.evaluation.readings import HeldOutFaces

MAX_REAL_FACES = 2000
"""Real faces used for pairs: their number grows with the square of this."""


def held_out_rows(manifest: pl.DataFrame) -> pl.DataFrame:
    """Return the manifest's held-out rows: test before val, a face of every person before seconds.

    Args:
        manifest: The training manifest.

    Returns:
        Its rows of the splits `test` and `val`, with the column `shown_path`: the enhanced image
        where there is one that may be used, else the face.
    """
    order = pl.col("split").replace_strict({"test": 0, "val": 1}, default=2, return_dtype=pl.Int32)
    return (
        manifest.filter(pl.col("split").is_in(["test", "val"]) & pl.col("age_years").is_finite())
        .with_columns(
            pl.coalesce("enhanced_path", "face_path").alias("shown_path"),
            pl.col("image_id").rank("ordinal").over("identity").alias("turn"),
            order.alias("order"),
        )
        # image_id is a hash: sorting by it draws at random, the same on every machine.
        .sort("order", "turn", "image_id")
        .drop("order", "turn")
    )


def rendered_rows(rows: pl.DataFrame, num_faces: int) -> pl.DataFrame:
    """Return the faces to render: of every age group in turn, as long as it has any.

    At random, a few hundred faces hold a handful of children and of people over 70, and no group
    of theirs could be judged. Means over these faces weigh the groups about alike, not as the
    corpus does.

    Args:
        rows: From `held_out_rows`.
        num_faces: At most so many.
    """
    turn = pl.int_range(pl.len()).over("age_group")
    return (
        rows.with_columns(turn.alias("group_turn"))
        .sort("group_turn", "age_group", maintain_order=True)
        .drop("group_turn")
        .head(num_faces)
    )


def real_rows(rows: pl.DataFrame, max_faces: int = MAX_REAL_FACES) -> pl.DataFrame:
    """Return the faces that pairs are made of: all of those who have several come first.

    Only they make pairs of one person; taking a face of everybody before anybody's second would,
    in a large corpus, leave none.

    Args:
        rows: From `held_out_rows`.
        max_faces: At most so many.
    """
    person = pl.col("image_id").min().over("identity")
    return (
        rows.with_columns((pl.len().over("identity") == 1).alias("single"), person.alias("person"))
        .sort("single", "person", "image_id")
        .drop("single", "person")
        .head(max_faces)
    )


def load_held_out(
    workspace: Workspace,
    rows: pl.DataFrame,
    size_px: int,
    groups: dict[str, np.ndarray] | None = None,
) -> HeldOutFaces:
    """Read held-out faces at one size, with their ages by label and the groups they belong to."""
    return HeldOutFaces(
        rows["image_id"].to_list(),
        rows["identity"].to_numpy(),
        load_faces(workspace, rows["shown_path"], size_px),
        rows["age_years"].to_numpy().astype(np.float64).clip(0, 100),
        groups or {},
    )


def groups_of(
    rows: pl.DataFrame, images: pl.DataFrame, truth: pl.DataFrame | None
) -> dict[str, np.ndarray]:
    """Return what is known of each row, by axis: str (N,), empty where it is not known.

    Args:
        rows: From `held_out_rows`.
        images: Table `images`, which says what the corpus knows.
        truth: The truth table of a synthetic corpus, if there is one.

    Returns:
        `age_group` of the label, and `gender` where any row's is known.
    """
    genders = images.select("image_id", "gender")
    if truth is not None and "gender" in truth.columns:
        known = truth.select("image_id", pl.col("gender").alias("true_gender"))
        genders = known.join(genders, on="image_id", how="left").select(
            "image_id", pl.coalesce("gender", "true_gender").alias("gender")
        )
    joined = rows.join(
        genders.unique("image_id"), on="image_id", how="left", maintain_order="left"
    ).with_columns(pl.col("gender").fill_null(""))
    groups = {axis: joined[axis].to_numpy() for axis in ("age_group", "gender")}
    return {axis: values for axis, values in groups.items() if any(values)}


def true_ages(rows: pl.DataFrame, truth: pl.DataFrame | None) -> np.ndarray:
    """Return the known age of each row, float64 (N,): of the truth, or the corpus's; else NaN."""
    if truth is None:
        known = rows.select(
            pl.when(pl.col("label_source") == "corpus").then(pl.col("age_years")).alias("known")
        )
    else:
        known = rows.join(
            truth.select("image_id", pl.col("true_age_years").alias("known")),
            on="image_id", how="left", maintain_order="left",
        )  # fmt: skip
    return known["known"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
