"""The variance filter: which images training may use, with every reason against the others.

An image is kept when it has a label, nothing hides the face, and its label is sure enough. Sure
enough means under the thresholds, or among the surest few of its age group in its partition, so
that rare ages do not vanish. That quota is drawn from the whole group whatever the thresholds
are: a looser threshold therefore always keeps a superset.
"""

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.config.filter import FilterConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS, group_of
from agetf_pipeline.data.schemas import IMAGES, KEEP_LIST, LABELS
from agetf_pipeline.data.tables import read_table, table_hashes, table_path, write_table
from agetf_pipeline.stages.base import StageReport, run_once

STAGE = "filter"
CODE_VERSION = "1"

REASONS: tuple[str, ...] = (
    "no_label", "high_variance", "wide_interval", "extreme_pose", "dark_glasses", "occluded_eyes",
)  # fmt: skip
"""Every reason against an image. Only the second and third are forgiven by the quota."""


def run(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    """Write the keep-list of one partition.

    Raises:
        StageError: The partition has no labels.
    """
    if not table_path(workspace, LABELS, partition).exists():
        raise StageError(
            f"Expected labels of '{partition}'; found none. Run the stages 'predict' (for this "
            "partition) and 'relabel' first."
        )
    inputs = table_hashes(workspace, LABELS, [partition])
    inputs |= table_hashes(workspace, IMAGES, [partition])
    corpus_variance = config.assemble.corpus_age_variance_years2
    settings = config.filter.settings() | {"corpus_age_variance_years2": corpus_variance}

    def work() -> StageReport:
        images = read_table(workspace, IMAGES, [partition])
        judged = judge(
            images, read_table(workspace, LABELS, [partition]), config.filter, corpus_variance
        )
        path = write_table(workspace, KEEP_LIST, partition, judged.drop("kept_by_quota"))
        counts = {
            "images": judged.height,
            "kept": int(judged["keep"].sum()),
            "kept_by_quota": int(judged["kept_by_quota"].sum()),
        }
        against = judged["reasons"].explode(empty_as_null=False)
        counts |= {reason: int((against == reason).sum()) for reason in REASONS}
        return StageReport(
            STAGE,
            partition=partition,
            counts=counts,
            figures={"kept_share": counts["kept"] / judged.height if judged.height else None},
            outputs={f"keep_list/{partition}": workspace.relative(path)},
            messages=_messages(judged, counts, config.filter),
        )

    return run_once(workspace, STAGE, settings, CODE_VERSION, inputs, work, partition)


def judge(
    images: pl.DataFrame, labels: pl.DataFrame, config: FilterConfig, corpus_variance: float
) -> pl.DataFrame:
    """Judge every image.

    An age that the corpus gives (CAF manifests) is the label, with the corpus's variance; the
    mixture's uncertainty then says nothing against the image. Pose, glasses and occlusion that
    are not known say nothing either.

    Args:
        images: Rows of table `images`.
        labels: Rows of table `labels` of the same images.
        config: The thresholds.
        corpus_variance: Of an age given by the corpus, years^2.

    Returns:
        Rows of table `keep_list`, and the column `kept_by_quota`.
    """
    given = pl.col("true_age_years").is_not_null()
    table = (
        images.join(labels, on="image_id", how="left", suffix="_of_label")
        .with_columns(
            label_age_years=pl.coalesce("true_age_years", "age_years"),
            label_variance_years2=pl.when(given)
            .then(pl.lit(corpus_variance, dtype=pl.Float32))
            .otherwise(pl.col("variance_years2")),
            width=pl.when(~given).then(
                pl.col("interval_high_years") - pl.col("interval_low_years")
            ),
        )
        .with_columns(
            label_group=pl.col("label_age_years").map_elements(
                group_of, return_dtype=pl.String, skip_nulls=True
            ),
            sigma=pl.col("label_variance_years2").sqrt(),
        )
        .sort("image_id")
    )
    place = pl.struct("sigma", "image_id").rank("ordinal").over("label_group")
    in_quota = pl.col("label_group").is_not_null() & (place <= config.min_kept_per_group)
    left, right = pl.col("left_eye_occluded"), pl.col("right_eye_occluded")
    tests = {
        "no_label": pl.col("label_age_years").is_null(),
        "high_variance": pl.col("sigma") > config.max_sigma_years,
        "wide_interval": pl.col("width") > config.max_interval_width_years,
        "extreme_pose": (pl.col("head_pitch").abs() >= config.max_head_pitch)
        | (pl.col("head_yaw").abs() >= config.max_head_yaw),
        "dark_glasses": (pl.col("glasses") == "Dark") & pl.lit(config.drop_dark_glasses),
        "occluded_eyes": (pl.max_horizontal(left, right) >= config.max_eye_occluded)
        | (pl.min_horizontal(left, right) >= config.max_other_eye_occluded),
    }
    table = table.with_columns(
        **{name: test.fill_null(False) for name, test in tests.items()}, in_quota=in_quota
    )
    unsure = pl.col("high_variance") | pl.col("wide_interval")
    barred = pl.any_horizontal("no_label", "extreme_pose", "dark_glasses", "occluded_eyes")
    keep = ~barred & (~unsure | pl.col("in_quota"))
    named = pl.concat_list(
        pl.when(pl.col(name)).then(pl.lit(name)).otherwise(None) for name in REASONS
    ).list.drop_nulls()
    return table.with_columns(keep=keep).select(
        "image_id",
        "keep",
        pl.when("keep")
        .then(pl.lit([], dtype=pl.List(pl.String)))
        .otherwise(named)
        .alias("reasons"),
        pl.col("label_age_years"),
        pl.col("label_variance_years2"),
        pl.col("label_group").alias("age_group"),
        pl.when("keep")
        .then(1 / (1 + (pl.col("sigma") / config.sigma0_years) ** 2))
        .cast(pl.Float32)
        .alias("curriculum_weight"),
        kept_by_quota=pl.col("keep") & unsure,
    )


def _messages(judged: pl.DataFrame, counts: dict[str, int], config: FilterConfig) -> list[str]:
    messages = []
    if counts["kept_by_quota"]:
        messages.append(
            f"{counts['kept_by_quota']} unsure images were kept as the surest of their age group "
            f"(filter.min_kept_per_group={config.min_kept_per_group})"
        )
    for group in AGE_GROUPS:
        rows = judged.filter(pl.col("age_group") == group)
        if rows.height and not rows["keep"].any():
            messages.append(
                f"age group {group} is emptied: none of its {rows.height} images is kept "
                f"({_tally(rows)}). Training sees no face of this age from this partition"
            )
    if judged.height and not counts["kept"]:
        messages.append(
            f"no image is kept ({_tally(judged)}): loosen the thresholds of the section filter"
        )
    return messages


def _tally(rows: pl.DataFrame) -> str:
    against = rows["reasons"].explode(empty_as_null=False)
    counted = {reason: int((against == reason).sum()) for reason in REASONS}
    return ", ".join(f"{reason} {count}" for reason, count in counted.items() if count)
