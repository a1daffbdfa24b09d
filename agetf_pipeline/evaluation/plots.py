"""The report's plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from agetf_pipeline.core.plotting import BLUE, GREY, ORANGE, PALETTE, figure, save_figure
from agetf_pipeline.core.statistics import Measure
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.evaluation.enhancement import METRICS
from agetf_pipeline.evaluation.labels import MIDPOINTS, MIXTURE, methods_of


def plot_read_ages(
    path: Path,
    anchors_years: Sequence[float],
    read_years: Mapping[str, np.ndarray],
    synthetic: bool,
) -> None:
    """Plot target against read age: every face, the mean, and the line of perfect rendering.

    Args:
        path: File to write.
        anchors_years: Target ages (A,).
        read_years: Ages read (N, A), a panel for each who read them.
        synthetic: Whether the faces are.
    """
    titles = {"estimator": "read by the outside estimator", "mixture": "read by the mixture"}
    fig = figure(6.4 * len(read_years), 4.6)
    panels = fig.subplots(1, len(read_years), squeeze=False)[0]
    anchors = np.asarray(anchors_years)
    for axes, (reader, read_NA) in zip(panels, read_years.items(), strict=True):
        whole_NA = read_NA[np.isfinite(read_NA).all(axis=1)]
        axes.plot(anchors, whole_NA.T, color=GREY, alpha=0.12, linewidth=0.8)
        axes.plot([0, 100], [0, 100], color="black", linestyle=":", linewidth=1, label="target")
        if len(whole_NA):
            axes.errorbar(
                anchors, whole_NA.mean(axis=0), yerr=whole_NA.std(axis=0), color=BLUE, marker="o",
                capsize=3, linewidth=2, label="mean and SD over faces",
            )  # fmt: skip
        axes.set(
            title=f"{len(whole_NA)}{_word(synthetic)} faces at ten ages"
            if len(anchors) == 10
            else f"{len(whole_NA)}{_word(synthetic)} faces",
            xlabel="target age (years)", ylabel=f"age {titles[reader]} (years)",
            xlim=(0, 100), ylim=(0, 100),
        )  # fmt: skip
        axes.legend(loc="upper left")
    save_figure(path, fig)


def plot_groups(path: Path, measures: Mapping[str, Measure], synthetic: bool) -> None:
    """Plot age error and identity of each group of faces, with intervals and the overall mean."""
    figures = (("age_mae_years", "MAE of the age read (years)", BLUE),
               ("id_similarity", "similarity to the source", PALETTE[2]))  # fmt: skip
    cells = {name: _measured_cells(measures, f"renderings/{name}/") for name, _, _ in figures}
    fig = figure(11, 1.5 + 0.36 * max(2, *(len(found) for found in cells.values())))
    for axes, (name, title, colour) in zip(fig.subplots(1, 2), figures, strict=True):
        for row, item in enumerate(reversed(cells[name].values())):
            axes.errorbar(item.value, row, xerr=_error(item), color=colour, marker="o", capsize=3)
        labels = [f"{key.partition('=')[2]} (n = {item.n})" for key, item in cells[name].items()]
        axes.set_yticks(range(len(labels)), labels[::-1])
        axes.set_ylim(-0.6, max(len(labels), 1) - 0.4)
        overall = measures.get(f"renderings/{name}")
        if overall is not None and overall.value is not None:
            axes.axvline(overall.value, color=GREY, linestyle="--", linewidth=1, label="all faces")
            axes.legend(loc="best")
        axes.set(title=f"By group of{_word(synthetic)} sources", xlabel=title)
    save_figure(path, fig)


def _measured_cells(measures: Mapping[str, Measure], prefix: str) -> dict[str, Measure]:
    return {
        key.removeprefix(prefix): item
        for key, item in measures.items()
        if key.startswith(prefix) and "=" in key and item.value is not None
    }


def plot_label_errors(path: Path, measures: Mapping[str, Measure], joined: pl.DataFrame) -> None:
    """Plot the MAE of each method with its interval, and of mixture and midpoints per group."""
    fig = figure(10, 4.2)
    left, right = fig.subplots(1, 2, width_ratios=[1, 1.35])
    methods = methods_of(joined)
    for row, name in enumerate(reversed(methods)):
        item = measures[f"labels/mae_years/{name}"]
        if item.value is None:
            continue
        colour = {MIXTURE: BLUE, MIDPOINTS: ORANGE}.get(name, GREY)
        left.barh(row, item.value, color=colour, xerr=_error(item), capsize=3)
    left.set_yticks(range(len(methods)), [_label(name) for name in reversed(methods)])
    synthetic = measures[f"labels/mae_years/{MIXTURE}"].synthetic
    left.set(
        title=f"Error of labels, {joined.height}{_word(synthetic)} images", xlabel="MAE (years)"
    )
    for offset, name, colour in ((-0.2, MIDPOINTS, ORANGE), (0.2, MIXTURE, BLUE)):
        for column, group in enumerate(AGE_GROUPS):
            item = measures[f"labels/mae_years/{name}/{group}"]
            if item.value is not None:
                right.bar(
                    column + offset, item.value, 0.38, color=colour, yerr=_error(item), capsize=2
                )
        right.bar(0, 0, color=colour, label=_label(name))
    right.set_xticks(range(len(AGE_GROUPS)), AGE_GROUPS, rotation=45)
    right.set_xlim(-0.6, len(AGE_GROUPS) - 0.4)
    right.set(title="by true age group", ylabel="MAE (years)")
    right.legend()
    save_figure(path, fig)


def plot_age_histograms(path: Path, joined: pl.DataFrame, synthetic: bool) -> None:
    """Plot the distributions of true ages, group midpoints and the mixture's labels."""
    fig = figure(6.4, 4)
    axes = fig.subplots()
    bins = list(range(0, 105, 5))
    series = (("true_age_years", "truth", "black"), (MIDPOINTS, "group midpoints", ORANGE),
              (MIXTURE, "mixture", BLUE))  # fmt: skip
    for column, label, colour in series:
        axes.hist(
            joined[column].to_numpy(), bins=bins, histtype="step", linewidth=1.8, color=colour,
            label=label,
        )  # fmt: skip
    axes.set(
        title=f"Ages of {joined.height}{_word(synthetic)} images",
        xlabel="age (years)", ylabel="images",
    )  # fmt: skip
    axes.legend()
    save_figure(path, fig)


def plot_enhancement(path: Path, measures: Mapping[str, Measure]) -> None:
    """Plot PSNR and SSIM of enhanced and bicubically resized images, per degradation."""
    fig = figure(10, 4)
    prefix = f"enhancement/{METRICS[0]}/enhanced"
    kinds = sorted(name.removeprefix(prefix) for name in measures if name.startswith(prefix))
    for axes, metric, title in zip(fig.subplots(1, 2), METRICS, ("PSNR (dB)", "SSIM"), strict=True):
        for offset, name, colour in ((-0.2, "bicubic", GREY), (0.2, "enhanced", BLUE)):
            for column, kind in enumerate(kinds):
                item = measures[f"enhancement/{metric}/{name}{kind}"]
                if item.value is not None:
                    axes.bar(
                        column + offset, item.value, 0.38, color=colour, yerr=_error(item),
                        capsize=2,
                    )  # fmt: skip
            axes.bar(0, 0, color=colour, label=name)
        labels = [kind.removeprefix("/").replace("_", " ") or "all" for kind in kinds]
        axes.set_xticks(range(len(kinds)), labels)
        axes.set_xlim(-0.6, len(kinds) - 0.4)
        axes.set_title(f"{title} against the clean original")
        axes.legend(loc="lower right")
    save_figure(path, fig)


def plot_identity(path: Path, measures: Mapping[str, Measure], gaps: Sequence[str]) -> None:
    """Plot verification rates of renderings and of real people, per gap of age."""
    fig = figure(6.4, 4)
    axes = fig.subplots()
    series = (("real/genuine_rate", "real pairs of one person", PALETTE[2]),
              ("renderings/verification_rate", "renderings and their source", BLUE))  # fmt: skip
    for offset, (name, label, colour) in zip((-0.2, 0.2), series, strict=True):
        for column, gap in enumerate(gaps):
            item = measures.get(f"{name}/gap_{gap}")
            if item is not None and item.value is not None:
                axes.bar(
                    column + offset, item.value, 0.38, color=colour, yerr=_error(item), capsize=2
                )
        axes.bar(0, 0, color=colour, label=label)
    axes.set_xticks(range(len(gaps)), gaps)
    axes.set_xlim(-0.6, len(gaps) - 0.4)
    axes.set(title="Verified as the same person", xlabel="gap of age (years)", ylabel="rate",
             ylim=(0, 1.05))  # fmt: skip
    axes.legend()
    save_figure(path, fig)


def _error(item: Measure) -> np.ndarray | None:
    if item.value is None or item.low is None or item.high is None:
        return None
    # A percentile interval need not hold the value itself.
    ends = [item.value - item.low, item.high - item.value]
    return np.maximum(np.array(ends)[:, None], 0)


def _label(name: str) -> str:
    return name.removeprefix("expert_").replace("_", " ")


def _word(synthetic: bool) -> str:
    return " synthetic" if synthetic else ""
