"""What became of each age group under the filter: counts, a table, a plot, and what to say of it.

Everything is counted a slice of rows at a time: what is held does not grow with the images.
"""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import polars as pl

from agetf_pipeline.config.filter import FilterConfig
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.moe.keeping import REASONS

NO_GROUP = "no age"
ALL = "all"
KEPT, BY_QUOTA = "kept", "kept by quota"
_DECIMALS = 4


class Tally:
    """Counts of judged images, by age group (`NO_GROUP`: without an age) and over `ALL`."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.images: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.kept_by_quota: Counter[str] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._weights: defaultdict[str, float] = defaultdict(float)
        self._squares: defaultdict[str, float] = defaultdict(float)

    def add(self, judged: pl.DataFrame) -> None:
        """Count rows of `keeping.judge`."""
        rows = judged.select(
            "keep", "kept_by_quota", "reasons", "curriculum_weight",
            group=pl.col("age_group").fill_null(NO_GROUP),
        )  # fmt: skip
        for group, its in [*rows.group_by("group"), ((ALL,), rows)]:
            name = str(group[0])
            self.images[name] += its.height
            self.kept[name] += int(its["keep"].sum())
            self.kept_by_quota[name] += int(its["kept_by_quota"].sum())
            weights = its.filter("keep")["curriculum_weight"].to_numpy().astype(float)
            self._weights[name] += float(weights.sum())
            self._squares[name] += float((weights**2).sum())
            against = its["reasons"].explode(empty_as_null=False).drop_nulls().value_counts()
            for reason, count in against.iter_rows():
                self.reasons[name, reason] += count
        outcome = (
            pl.when("kept_by_quota")
            .then(pl.lit(BY_QUOTA))
            .when("keep")
            .then(pl.lit(KEPT))
            .otherwise(pl.col("reasons").list.first())
        )
        for group, first, count in rows.group_by("group", outcome=outcome).len().iter_rows():
            self.outcomes[group, first] += count

    def effective(self, group: str) -> float | None:
        """Return the effective number of kept images, (sum w)^2 / sum w^2; None without any.

        Source: Kish (1965), of the curriculum weights.
        """
        if not self.kept[group]:
            return None
        squares = self._squares[group]
        return self._weights[group] ** 2 / squares if squares > 0 else 0.0

    def table(self, quota: int) -> pl.DataFrame:
        """Return what became of each age group, of images without an age, and of all.

        Args:
            quota: `filter.min_kept_per_group`.

        Returns:
            A row an age group: images, kept, kept share, those that the quota kept and its size;
            the effective number of kept images; and images per reason against them (an image may
            have several). Shares and effective numbers are null where there is no image.
        """
        rows = []
        for group in (*AGE_GROUPS, NO_GROUP, ALL):
            images, kept, effective = self.images[group], self.kept[group], self.effective(group)
            rows.append(
                {
                    "age_group": group,
                    "images": images,
                    "kept": kept,
                    "kept_share": round(kept / images, _DECIMALS) if images else None,
                    "kept_by_quota": self.kept_by_quota[group],
                    "quota": quota if group in AGE_GROUPS else None,
                    "effective_images": None if effective is None else round(effective, _DECIMALS),
                    **{reason: self.reasons[group, reason] for reason in REASONS},
                }
            )
        return pl.DataFrame(rows, infer_schema_length=None)

    def messages(self, config: FilterConfig) -> list[str]:
        """Return what a person should read: the quota's part, and groups that are emptied."""
        messages = []
        if by_quota := self.kept_by_quota[ALL]:
            messages.append(
                f"{by_quota} unsure images were kept as the surest of their age group "
                f"(filter.min_kept_per_group={config.min_kept_per_group})"
            )
        messages += [
            f"age group {group} is emptied: none of its {self.images[group]} images is kept "
            f"({self._against(group)}). Training sees no face of this age from this partition"
            for group in AGE_GROUPS
            if self.images[group] and not self.kept[group]
        ]
        if self.images[ALL] and not self.kept[ALL]:
            messages.append(
                f"no image is kept ({self._against(ALL)}): loosen the thresholds of the section "
                "filter"
            )
        return messages

    def _against(self, group: str) -> str:
        counted = {reason: self.reasons[group, reason] for reason in REASONS}
        return ", ".join(f"{reason} {count}" for reason, count in counted.items() if count)


def group_report(judged: pl.DataFrame, quota: int) -> pl.DataFrame:
    """Return the table of `Tally` for judged rows that are at hand."""
    tally = Tally()
    tally.add(judged)
    return tally.table(quota)


def plot_groups(path: Path, tally: Tally, subtitle: str) -> None:
    """Draw images kept, kept by the quota and dropped per age group.

    Args:
        path: PNG to write.
        tally: Of judged images. A dropped image counts for the first of its reasons.
        subtitle: Which images these are.
    """
    from agetf_pipeline.core.plotting import BLUE, GREY, PALETTE, SKY, figure, save_figure

    colours = {KEPT: BLUE, BY_QUOTA: SKY, "no_label": GREY}
    others = (colour for colour in PALETTE if colour not in colours.values())
    groups = [*AGE_GROUPS, NO_GROUP]
    fig = figure(9, 4)
    axis = fig.subplots()
    below = np.zeros(len(groups))
    for outcome in (KEPT, BY_QUOTA, *REASONS):
        counts = np.array([tally.outcomes[group, outcome] for group in groups])
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
