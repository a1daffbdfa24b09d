"""What a good file of age labels looks like: rules on the rows of `data.label_table`.

What cannot be read at all (dates for groups, an image listed twice) was refused while reading; here
stands what a person should know of labels that can be read.
"""

import polars as pl

from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.quality.rule import Rule

NUM_FFHQ_IMAGES = 70_000
MIN_AGE_CONFIDENCE, MIN_GENDER_CONFIDENCE = 0.6, 0.66
"""The thresholds that work with FFHQ-Aging usually takes."""

_MIN_IMAGES_PER_GROUP = 100
_MAX_RACES = 12


def _outside(column: str, low: float, high: float) -> pl.Expr:
    return (pl.col(column) < low) | (pl.col(column) > high)


def _has(*columns: str) -> pl.Expr:
    """Whether the file has one of these columns: it speaks of no row otherwise."""
    return pl.any_horizontal(pl.col(column).is_not_null().any() for column in columns)


_OF_ITS_GROUP = pl.len().over("age_group")

LABEL_FILE_RULES: tuple[Rule, ...] = (
    Rule(
        "number_of_ffhq",
        "Numbers are FFHQ's, 0 to 69999",
        _outside("image_number", 0, NUM_FFHQ_IMAGES - 1),
        "warning",
    ),
    Rule("age_known", "Images have an age group", pl.col("age_group").is_null(), "warning", 0.05),
    Rule(
        "age_mostly_known",
        "Most images have an age group",
        pl.col("age_group").is_null(),
        "critical",
        0.5,
    ),
    Rule(
        "every_group",
        "Every age group occurs",
        pl.col("age_group").drop_nulls().n_unique() < len(AGE_GROUPS),
        "warning",
    ),
    Rule(
        "groups_not_rare",
        f"No image is of a group of under {_MIN_IMAGES_PER_GROUP} images",
        pl.col("age_group").is_not_null() & (_OF_ITS_GROUP < _MIN_IMAGES_PER_GROUP),
        "warning",
    ),
    Rule(
        "no_group_dominates",
        "No age group holds half of the images",
        pl.col("age_group").is_not_null() & (0.5 * pl.len() < _OF_ITS_GROUP),
        "warning",
    ),
    Rule("gender_known", "Images have a gender", pl.col("gender").is_null(), "warning", 0.05),
    Rule(
        "race_known",
        "Images have a race",
        pl.col("race").is_null(),
        "warning",
        0.05,
        _has("race"),
    ),
    Rule(
        "few_races",
        f"Races are at most {_MAX_RACES} words, spelled alike",
        pl.col("race").drop_nulls().n_unique() > _MAX_RACES,
        "warning",
        applies=_has("race"),
    ),
    Rule(
        "age_confident",
        f"The crowd was sure of the age (above {MIN_AGE_CONFIDENCE})",
        pl.col("age_group_confidence") <= MIN_AGE_CONFIDENCE,
        "warning",
        0.3,
        _has("age_group_confidence"),
    ),
    Rule(
        "gender_confident",
        f"The crowd was sure of the gender (above {MIN_GENDER_CONFIDENCE})",
        pl.col("gender_confidence") <= MIN_GENDER_CONFIDENCE,
        "warning",
        0.3,
        _has("gender_confidence"),
    ),
    Rule(
        "pose_in_range",
        "Head angles lie in -180 to 180 degrees",
        _outside("head_pitch", -180, 180)
        | _outside("head_roll", -180, 180)
        | _outside("head_yaw", -180, 180),
        applies=_has("head_pitch", "head_roll", "head_yaw"),
    ),
    Rule(
        "occlusion_in_range",
        "Eyes are occluded by 0 to 100 percent",
        _outside("left_eye_occluded", 0, 100) | _outside("right_eye_occluded", 0, 100),
        applies=_has("left_eye_occluded", "right_eye_occluded"),
    ),
)
