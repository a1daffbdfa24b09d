"""The variance filter: which images training may use, with every reason against the others.

An image is kept when it has a label, nothing hides the face, and its label is sure enough. Sure
enough means under the thresholds, or among the surest few of its age group in its partition, so
that rare ages do not vanish. That quota is drawn from the whole group whatever the thresholds
are: a looser threshold therefore always keeps a superset. What became of each age group stands in
`stats/filter/<partition>.csv` and `.png`.
"""

from pathlib import Path

import numpy as np
import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.config.filter import FilterConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS, group_of
from agetf_pipeline.data.schemas import IMAGES, KEEP_LIST, LABELS
from agetf_pipeline.data.tables import read_table, table_hashes, table_path, write_table
from agetf_pipeline.stages.base import StageReport, run_once

STAGE = "filter"
CODE_VERSION = "2"

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

NO_GROUP = "no age"
_DECIMALS = 4


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
    synthetic = config.synthesize.enabled
    settings = config.filter.settings() | {
        "corpus_age_variance_years2": corpus_variance,
        "synthetic": synthetic,
    }

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
        groups = group_report(judged, config.filter.min_kept_per_group)
        report_csv = workspace.stats / "filter" / f"{partition}.csv"
        plot = report_csv.with_suffix(".png")
        write_text(report_csv, groups.write_csv())
        plot_groups(plot, judged, f"{partition}, synthetic" if synthetic else partition)
        return StageReport(
            STAGE,
            partition=partition,
            counts=counts,
            figures={
                "kept_share": counts["kept"] / judged.height if judged.height else None,
                "effective_images": groups["effective_images"][-1],
            },
            outputs={
                f"keep_list/{partition}": workspace.relative(path),
                "filter_report": workspace.relative(report_csv),
                "filter_plot": workspace.relative(plot),
            },
            messages=_messages(judged, counts, config.filter),
        )

    return run_once(workspace, STAGE, settings, CODE_VERSION, inputs, work, partition)


def judge(
    images: pl.DataFrame, labels: pl.DataFrame, config: FilterConfig, corpus_variance: float
) -> pl.DataFrame:
    """Judge every image.

    An age that the corpus gives (CAF manifests) is the label, with the corpus's variance; the
    mixture's uncertainty and its decision then say nothing against the image. Pose, glasses,
    occlusion and confidences that are not known say nothing either.

    Args:
        images: Rows of table `images`.
        labels: Rows of table `labels` of the same images.
        config: The thresholds.
        corpus_variance: Of an age given by the corpus, years^2.

    Returns:
        Rows of table `keep_list`, and the column `kept_by_quota`.
    """
    table = _joined(images, labels, corpus_variance)
    place = pl.struct("sigma", "image_id").rank("ordinal").over("label_group")
    in_quota = pl.col("label_group").is_not_null() & (place <= config.min_kept_per_group)
    table = table.with_columns(
        **{name: test.fill_null(False) for name, test in _tests(config).items()}, in_quota=in_quota
    )
    unsure = pl.any_horizontal(FORGIVEN)
    barred = pl.any_horizontal(name for name in REASONS if name not in FORGIVEN)
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


def _joined(images: pl.DataFrame, labels: pl.DataFrame, corpus_variance: float) -> pl.DataFrame:
    """Join images and labels; add the label that counts, and what the mixture says against it."""
    given = pl.col("true_age_years").is_not_null()
    disagreement = pl.col("between_variance_years2").sqrt()
    width = pl.col("interval_high_years") - pl.col("interval_low_years")
    return (
        images.join(labels, on="image_id", how="left", suffix="_of_label")
        .with_columns(
            label_age_years=pl.coalesce("true_age_years", "age_years"),
            label_variance_years2=pl.when(given)
            .then(pl.lit(corpus_variance, dtype=pl.Float32))
            .otherwise(pl.col("variance_years2")),
            width=pl.when(~given).then(width),
            disagreement=pl.when(~given).then(disagreement),
            verdict=pl.when(~given).then(pl.col("decision")),
        )
        .with_columns(
            label_group=pl.col("label_age_years").map_elements(
                group_of, return_dtype=pl.String, skip_nulls=True
            ),
            sigma=pl.col("label_variance_years2").sqrt(),
        )
        .sort("image_id")
    )


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


def group_report(judged: pl.DataFrame, quota: int) -> pl.DataFrame:
    """Return what became of each age group, of images without an age, and of all.

    Args:
        judged: From `judge`.
        quota: `filter.min_kept_per_group`.

    Returns:
        A row an age group: images, kept, kept share, those that the quota kept and its size; the
        effective number of kept images, (sum w)^2 / sum w^2 of their curriculum weights (Kish
        1965); and images per reason against them (an image may have several). Shares and effective
        numbers are null where there is no image.
    """
    from agetf_pipeline.core.statistics import effective_number

    rows = []
    for group in (*AGE_GROUPS, NO_GROUP, "all"):
        of_group = _of_group(judged, group)
        kept = of_group.filter("keep")
        weights = kept["curriculum_weight"].to_numpy()
        against = of_group["reasons"].explode(empty_as_null=False)
        rows.append(
            {
                "age_group": group,
                "images": of_group.height,
                "kept": kept.height,
                "kept_share": round(kept.height / of_group.height, _DECIMALS)
                if of_group.height
                else None,
                "kept_by_quota": int(of_group["kept_by_quota"].sum()),
                "quota": quota if group in AGE_GROUPS else None,
                "effective_images": round(effective_number(weights), _DECIMALS)
                if kept.height
                else None,
                **{reason: int((against == reason).sum()) for reason in REASONS},
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def plot_groups(path: Path, judged: pl.DataFrame, subtitle: str) -> None:
    """Draw images kept, kept by the quota and dropped per age group.

    Args:
        path: PNG to write.
        judged: From `judge`. A dropped image counts for the first of its reasons.
        subtitle: Which images these are.
    """
    from agetf_pipeline.core.plotting import BLUE, GREY, PALETTE, SKY, figure, save_figure

    first = judged.with_columns(
        outcome=pl.when(pl.col("kept_by_quota"))
        .then(pl.lit("kept by quota"))
        .when("keep")
        .then(pl.lit("kept"))
        .otherwise(pl.col("reasons").list.first())
    )
    colours = {"kept": BLUE, "kept by quota": SKY, "no_label": GREY}
    others = (colour for colour in PALETTE if colour not in colours.values())
    groups = [*AGE_GROUPS, NO_GROUP]
    fig = figure(9, 4)
    axis = fig.subplots()
    below = np.zeros(len(groups))
    for outcome in ("kept", "kept by quota", *REASONS):
        rows = first.filter(pl.col("outcome") == outcome)
        counts = np.array([_of_group(rows, group).height for group in groups])
        if not counts.any():
            continue
        colour = colours.get(outcome) or next(others)
        label = f"{outcome.replace('_', ' ')} ({counts.sum()})"
        axis.bar(range(len(groups)), counts, bottom=below, color=colour, label=label)
        below += counts
    axis.set_xticks(range(len(groups)), groups, rotation=45, ha="right")
    axis.set(xlabel="age group of the label", ylabel="images")
    axis.set_title(f"Kept and dropped (by the first reason), {subtitle}")
    if below.any():
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    save_figure(path, fig)


def _of_group(judged: pl.DataFrame, group: str) -> pl.DataFrame:
    if group == "all":
        return judged
    if group == NO_GROUP:
        return judged.filter(pl.col("age_group").is_null())
    return judged.filter(pl.col("age_group") == group)


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
