"""Which images training may use: every reason against each, and the quota of the age groups.

The rows of a table are judged a slice at a time. Only the quota looks beyond its slice, and what it
holds is the surest few of each age group (`Surest`), not all of them.
"""

from collections.abc import Iterable

import polars as pl

from agetf_pipeline.config.filter import FilterConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.ages import age_group
from agetf_pipeline.data.streaming import compact

REASONS: tuple[str, ...] = (
    "no_label", "dropped_by_mixture", "high_variance", "high_disagreement", "wide_interval",
    "low_crowd_confidence", "extreme_pose", "dark_glasses", "occluded_eyes",
)  # fmt: skip
"""Every reason against an image."""

FORGIVEN: tuple[str, ...] = (
    "high_variance", "high_disagreement", "wide_interval", "low_crowd_confidence",
)  # fmt: skip
"""Reasons that the quota of an age group forgives: how sure the label is. The others are about the
face itself, or about a label that the mixture has given up."""

IMAGE_COLUMNS = [
    "image_id", "true_age_years", "age_group_confidence", "head_pitch", "head_roll", "head_yaw",
    "left_eye_occluded", "right_eye_occluded", "glasses",
]  # fmt: skip
"""Of table `images`, what a verdict needs."""
LABEL_COLUMNS = [
    "image_id", "age_years", "variance_years2", "between_variance_years2", "interval_low_years",
    "interval_high_years", "decision",
]  # fmt: skip
"""Of table `labels`."""
QUOTA_COLUMNS = (["image_id", "true_age_years"], ["image_id", "age_years", "variance_years2"])
"""Of `images` and of `labels`, what the quota needs."""


def judge(
    images: pl.DataFrame, labels: pl.DataFrame, config: FilterConfig, corpus_variance: float
) -> pl.DataFrame:
    """Judge every image of whole tables; see `judge_slice`."""
    surest = Surest(config.min_kept_per_group)
    surest.add(with_labels(images, labels, corpus_variance))
    return judge_slice(images, labels, config, corpus_variance, surest.image_ids())


def judge_slice(
    images: pl.DataFrame,
    labels: pl.DataFrame | None,
    config: FilterConfig,
    corpus_variance: float,
    surest: Iterable[str],
) -> pl.DataFrame:
    """Judge images.

    An age that the corpus gives (CAF manifests) is the label, with the corpus's variance; the
    mixture's uncertainty and its decision then say nothing against the image. Pose, glasses,
    occlusion and confidences that are not known say nothing either.

    Args:
        images: Rows of table `images`, at least `IMAGE_COLUMNS`.
        labels: Rows of table `labels` of the same images, at least `LABEL_COLUMNS`; None where
            none of them has one.
        config: The thresholds.
        corpus_variance: Of an age given by the corpus, years^2.
        surest: The images that the quota of their age group keeps, of the whole partition.

    Returns:
        Rows of table `keep_list`, sorted by image_id, and the column `kept_by_quota`.
    """
    given = pl.col("true_age_years").is_not_null()
    disagreement = pl.col("between_variance_years2").sqrt()
    width = pl.col("interval_high_years") - pl.col("interval_low_years")
    table = with_labels(images, labels, corpus_variance).with_columns(
        width=pl.when(~given).then(width),
        disagreement=pl.when(~given).then(disagreement),
        verdict=pl.when(~given).then(pl.col("decision")),
        in_quota=pl.col("image_id").is_in(list(surest)),
    )
    table = table.with_columns(
        **{name: test.fill_null(False) for name, test in _tests(config).items()}
    )
    unsure = pl.any_horizontal(FORGIVEN)
    barred = pl.any_horizontal(name for name in REASONS if name not in FORGIVEN)
    keep = ~barred & (~unsure | pl.col("in_quota"))
    table = table.with_columns(keep=keep, kept_by_quota=keep & unsure)
    return table.select(
        "image_id",
        "keep",
        _reasons(table),
        "label_age_years",
        "label_variance_years2",
        pl.col("label_group").alias("age_group"),
        pl.when("keep")
        .then(1 / (1 + (pl.col("sigma") / config.sigma0_years) ** 2))
        .cast(pl.Float32)
        .alias("curriculum_weight"),
        "kept_by_quota",
    )


def with_labels(
    images: pl.DataFrame, labels: pl.DataFrame | None, corpus_variance: float
) -> pl.DataFrame:
    """Join images and labels, sorted by image_id, and add the label that counts.

    Returns:
        The columns of both; `label_age_years`, `label_variance_years2`, `label_group` and `sigma`
        (years), null where there is no label.

    Raises:
        DataError: An age is negative or not finite.
    """
    labels = pl.DataFrame(schema=_LABEL_TYPES) if labels is None else labels
    given = pl.col("true_age_years").is_not_null()
    table = (
        _joined(images, labels)
        .with_columns(
            label_age_years=pl.coalesce("true_age_years", "age_years"),
            label_variance_years2=pl.when(given)
            .then(pl.lit(corpus_variance, dtype=pl.Float32))
            .otherwise(pl.col("variance_years2")),
        )
        .with_columns(
            label_group=age_group("label_age_years"),
            sigma=pl.col("label_variance_years2").sqrt(),
        )
    )
    if table["label_age_years"].null_count() != table["label_group"].null_count():
        wrong = pl.col("label_age_years").is_not_null() & pl.col("label_group").is_null()
        raise DataError(
            "Expected ages to be finite and not negative; found "
            f"{table.filter(wrong)['label_age_years'][0]} of image "
            f"{table.filter(wrong)['image_id'][0]}. Correct what the corpus says, and run the "
            "stages 'ingest' and 'relabel' again."
        )
    return table


_LABEL_TYPES: dict[str, type[pl.Float32] | type[pl.String]] = {
    name: pl.Float32 for name in LABEL_COLUMNS if name not in ("image_id", "decision")
} | {"image_id": pl.String, "decision": pl.String}


def _joined(images: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    # The stage that labels gives a row to every image: as a rule nothing is to be looked up.
    if images["image_id"].equals(labels["image_id"]) and images["image_id"].is_sorted():
        others = {name for name in labels.columns if name not in images.columns}
        return images.hstack(labels.select(pl.col(sorted(others))))
    return images.join(labels, on="image_id", how="left", suffix="_of_label").sort("image_id")


class Surest:
    """The surest images of each age group, gathered a slice at a time: by sigma, then by id."""

    def __init__(self, num_each: int) -> None:
        """Keep `num_each` images of a group."""
        self._num_each = num_each
        self._kept: pl.DataFrame | None = None

    def add(self, table: pl.DataFrame) -> None:
        """Look at images, from `with_labels`. Only those that may be among the few are sorted."""
        if not self._num_each:
            return
        rows = table.select("label_group", "sigma", "image_id").filter(
            pl.col("label_group").is_not_null()
        )
        if self._kept is not None:
            full = self._kept.group_by("label_group").agg(
                pl.len().alias("held"), limit=pl.col("sigma").max()
            )
            limits = dict(
                full.filter(pl.col("held") >= self._num_each)
                .select("label_group", "limit")
                .iter_rows()
            )
            limit = pl.col("label_group").replace_strict(
                list(limits), list(limits.values()), default=None, return_dtype=pl.Float32
            )
            rows = pl.concat([self._kept, rows.filter((pl.col("sigma") <= limit).fill_null(True))])
        self._kept = compact(
            rows.sort("sigma", "image_id")
            .group_by("label_group", maintain_order=True)
            .head(self._num_each)
        )

    def image_ids(self) -> list[str]:
        """Return the images kept, of all groups."""
        return [] if self._kept is None else self._kept["image_id"].to_list()


def _tests(config: FilterConfig) -> dict[str, pl.Expr]:
    """Return, per reason, the expression that is true for images that it speaks against."""
    left, right = pl.col("left_eye_occluded"), pl.col("right_eye_occluded")
    gone = ["drop", "review"] if config.drop_review else ["drop"]
    pose = (pl.col("head_pitch").abs() >= config.max_head_pitch) | (
        pl.col("head_yaw").abs() >= config.max_head_yaw
    )
    if config.max_head_roll is not None:
        pose = pose | (pl.col("head_roll").abs() >= config.max_head_roll)
    return {
        "no_label": pl.col("label_age_years").is_null(),
        "dropped_by_mixture": pl.col("verdict").is_in(gone),
        "high_variance": pl.col("sigma") > config.max_sigma_years,
        "high_disagreement": _beyond("disagreement", config.max_disagreement_years),
        "wide_interval": pl.col("width") > config.max_interval_width_years,
        "low_crowd_confidence": (
            pl.lit(False)
            if config.min_crowd_confidence is None
            else pl.col("age_group_confidence") < config.min_crowd_confidence
        ),
        "extreme_pose": pose,
        "dark_glasses": (pl.col("glasses") == "Dark") & pl.lit(config.drop_dark_glasses),
        "occluded_eyes": (pl.max_horizontal(left, right) >= config.max_eye_occluded)
        | (pl.min_horizontal(left, right) >= config.max_other_eye_occluded),
    }


def _beyond(column: str, limit: float | None) -> pl.Expr:
    return pl.lit(False) if limit is None else pl.col(column) > limit


def _reasons(table: pl.DataFrame) -> pl.Series:
    """Return the names of the tests that speak against each image; none where it is kept.

    The combinations that occur are few: each is spelled once, and rows take theirs by its number.
    """
    code = pl.sum_horizontal(
        pl.col(name).cast(pl.UInt16) * (1 << place) for place, name in enumerate(REASONS)
    ).cast(pl.UInt16)
    codes = table.select(pl.when("keep").then(pl.lit(0, pl.UInt16)).otherwise(code))
    numbers = codes.to_series()
    found = numbers.unique().sort()
    named = [
        [name for place, name in enumerate(REASONS) if number >> place & 1] for number in found
    ]
    lists = pl.Series("reasons", named, dtype=pl.List(pl.String))
    return lists.gather(found.search_sorted(numbers)).alias("reasons")
