"""What a file of age labels holds: who is in it, and how far it supports the ten anchors."""

from dataclasses import dataclass

import polars as pl

from agetf_pipeline.data.ages import AGE_GROUPS, group_bounds

ANCHORS_YEARS: tuple[float, ...] = tuple(float(age) for age in range(5, 100, 10))
"""The ages of configs/age_anchors.yaml."""

WITHIN_YEARS = 5.0
UNKNOWN = "unknown"

_DECIMALS = 4


@dataclass(frozen=True)
class LabelStatistics:
    """Counts of a table of labels.

    Attributes:
        num_images: Rows of the table.
        groups: A row an age group (and one for images without), in the order of the ages: images,
            share, and a column of images for each gender and race that occurs (`gender_female`,
            `race_unknown`...).
        cross: A row a combination of age group, gender and race that occurs: images, share.
        anchors: A row an anchor: see `anchor_support`.
    """

    num_images: int
    groups: pl.DataFrame
    cross: pl.DataFrame
    anchors: pl.DataFrame


def label_statistics(frame: pl.DataFrame) -> LabelStatistics:
    """Count a table of labels (columns of `label_table.SCHEMA`)."""
    known = frame.select(pl.col("age_group", "gender", "race").fill_null(UNKNOWN))
    groups = [*AGE_GROUPS, *([UNKNOWN] if frame["age_group"].null_count() else [])]
    order = pl.DataFrame({"age_group": groups})
    counts = order.join(
        known.group_by("age_group").agg(images=pl.len().cast(pl.Int64)), "age_group", "left",
        maintain_order="left",
    ).with_columns(pl.col("images").fill_null(0))  # fmt: skip
    counts = counts.with_columns(share=_share(frame.height))
    for column in ("gender", "race"):
        if frame[column].null_count() == frame.height:
            continue  # a layout without the column
        values = sorted(known[column].unique().to_list(), key=lambda name: (name == UNKNOWN, name))
        tally = known.group_by("age_group").agg(
            (pl.col(column) == value).sum().cast(pl.Int64).alias(f"{column}_{value}")
            for value in values
        )
        counts = counts.join(tally, "age_group", "left", maintain_order="left")
    cross = (
        known.group_by("age_group", "gender", "race")
        .agg(images=pl.len().cast(pl.Int64))
        .with_columns(share=_share(frame.height))
        .sort(
            pl.col("age_group").replace_strict(groups, list(range(len(groups)))), "gender", "race"
        )
    )
    return LabelStatistics(
        frame.height, counts.fill_null(0), cross, anchor_support(frame["age_group"])
    )


def anchor_support(age_groups: pl.Series) -> pl.DataFrame:
    """Return how many images stand behind each anchor, within five years of it.

    A group says an age to within its width only. Ages are taken as spread evenly over their group
    (70-120: over 70 to 101), and `effective_images` is the sum of the probabilities that an image
    lies within five years: 20,000 images of 50-69 are worth 10,000 for the anchor 55. (Kish's
    formula would count images of a wide group in full, since their weights are equal.) For the
    oldest the even spread flatters: photographs show few people over 90.

    Args:
        age_groups: The group of each image, or null.

    Returns:
        A row an anchor: `anchor_years`; `effective_images`; `certain_images`, whose whole group
        lies within; `possible_images`, whose group overlaps; and `extrapolated`, true where the
        window lies inside one group without touching its ends, so that no label says whether
        anybody in it has that age (85 and 95).
    """
    images = dict(age_groups.value_counts().iter_rows())
    rows = []
    for anchor in ANCHORS_YEARS:
        low, high = anchor - WITHIN_YEARS, anchor + WITHIN_YEARS
        effective, certain, possible, inside_one = 0.0, 0, 0, False
        for group in AGE_GROUPS:
            lower, upper = group_bounds(group)
            share = max(0.0, min(high, upper) - max(low, lower)) / (upper - lower)
            number = int(images.get(group, 0))
            effective += share * number
            certain += number if share == 1 else 0
            possible += number if share > 0 else 0
            inside_one |= lower < low and high < upper
        rows.append(
            {
                "anchor_years": anchor,
                "effective_images": round(effective, 1),
                "certain_images": certain,
                "possible_images": possible,
                "extrapolated": inside_one,
            }
        )
    return pl.DataFrame(rows)


def _share(num_images: int) -> pl.Expr:
    return (pl.col("images") / max(num_images, 1)).round(_DECIMALS)
