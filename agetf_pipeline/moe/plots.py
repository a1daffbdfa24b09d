"""Pictures of the mixture: ages before and after, and whether its uncertainty can be believed."""

from pathlib import Path

import numpy as np
import polars as pl

from agetf_pipeline.core.plotting import BLACK, BLUE, GREY, ORANGE, figure, save_figure
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.moe.fitting import CrossFitted


def plot_ages(path: Path, labels: pl.DataFrame, subtitle: str) -> None:
    """Draw how ages spread before (original groups) and after (the mixture's).

    Args:
        path: PNG to write.
        labels: Rows of table `labels`.
        subtitle: What the images are.
    """
    fig = figure(9, 3.6)
    groups, ages = fig.subplots(1, 2)
    before = [int((labels["original_age_group"] == group).sum()) for group in AGE_GROUPS]
    after = [int((labels["age_group"] == group).sum()) for group in AGE_GROUPS]
    place = np.arange(len(AGE_GROUPS))
    groups.bar(place - 0.2, before, 0.4, color=GREY, label=f"before (n={sum(before)})")
    groups.bar(place + 0.2, after, 0.4, color=BLUE, label=f"after (n={sum(after)})")
    groups.set_xticks(place, AGE_GROUPS, rotation=45, ha="right")
    groups.set(xlabel="age group", ylabel="images")
    groups.set_title(f"Age groups, {subtitle}")
    groups.legend()
    known = labels["age_years"].drop_nulls().to_numpy()
    ages.hist(known, bins=np.arange(0, 105, 2.5), color=BLUE)
    ages.set(xlabel="age of the mixture (years)", ylabel="images")
    ages.set_title("Ages after")
    save_figure(path, fig)


def plot_reliability(path: Path, fitted: CrossFitted, level: float, subtitle: str) -> None:
    """Draw, on cross-fitted calibration images: truth and estimate, and promised and real coverage.

    Args:
        path: PNG to write.
        fitted: Readings of images whose identity the calibration had not seen.
        level: The level of the intervals.
        subtitle: What the images are.
    """
    fig = figure(9, 4)
    scatter, reliability = fig.subplots(1, 2)
    known = np.isfinite(fitted.age_N)
    truth, age = fitted.true_age_N[known], fitted.age_N[known]
    spread = np.stack([age - fitted.low_N[known], fitted.high_N[known] - age])
    inside = (truth >= fitted.low_N[known]) & (truth <= fitted.high_N[known])
    for chosen, colour, name in ((inside, BLUE, "inside"), (~inside, ORANGE, "outside")):
        scatter.errorbar(
            truth[chosen], age[chosen], spread[:, chosen], fmt="o", color=colour, ms=2.5, lw=0.5,
            label=f"truth {name} the interval ({chosen.sum()})",
        )  # fmt: skip
    scatter.plot([0, 100], [0, 100], color=BLACK, lw=0.8)
    scatter.set(xlabel="true age (years)", ylabel="age of the mixture (years)")
    scatter.set_title(f"{level:.0%} intervals, {subtitle}")
    scatter.legend()
    levels = np.linspace(0.05, 0.95, 19)
    reliability.plot([0, 1], [0, 1], color=BLACK, lw=0.8, label="promised")
    reliability.plot(
        levels, real_coverage(fitted.score_N[known], levels), "o-", color=BLUE, ms=3,
        label="sigma taken as Gaussian",
    )  # fmt: skip
    reliability.plot([level], [inside.mean()], "D", color=ORANGE, label="conformal interval")
    reliability.set(xlabel="promised coverage", ylabel="share of true ages inside")
    reliability.set_title(f"Cross-fitted, n={known.sum()}")
    reliability.legend()
    save_figure(path, fig)


def real_coverage(score_N: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the share of |error|/sigma scores within each level's Gaussian quantile, (L,)."""
    from scipy.stats import norm

    return (score_N[:, None] <= norm.ppf(0.5 + levels / 2)).mean(axis=0)
