"""Plots of the mixture's figures. An expert keeps its colour and its mark in all of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agetf_pipeline.core.plotting import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    OCHRE,
    ORANGE,
    PINK,
    RED,
    SKY,
    figure,
    save_figure,
)
from agetf_pipeline.core.statistics import Measure
from agetf_pipeline.data.ages import AGE_GROUPS

if TYPE_CHECKING:
    from agetf_pipeline.moe.comparison import Comparison
    from agetf_pipeline.moe.metrics import Reliability

_MIXTURE = "mixture"
_EXPERT_COLOURS = (ORANGE, GREEN, PINK, SKY, OCHRE, RED)
_MARKS = ("s", "^", "v", "D", "P", "X")


def plot_reliability_curves(
    path: Path,
    reliability: Sequence["Reliability"],
    errors: Mapping[str, Measure],
    subtitle: str,
) -> None:
    """Draw promised against real coverage: the mixture's intervals left, the experts' right."""
    fig = figure(9, 4.4)
    own, experts = fig.subplots(1, 2, sharey=True)
    labels = {"conformal": "conformal interval", _MIXTURE: "mixture's distribution"}
    names = [item.reader for item in reliability if item.reader not in labels]
    for item in reliability:
        axes = own if item.reader in labels else experts
        colour, mark = _look(item.reader, names)
        if item.reader == "conformal":
            colour, mark = RED, "D"
        error = errors[item.reader].value
        about = "" if error is None else f", off by {error:.3f}"
        axes.plot(
            item.levels_L, item.coverage_L, color=colour, marker=mark, ms=4, lw=1.4,
            label=f"{labels.get(item.reader, item.reader)}{about}",
        )  # fmt: skip
    for axes, title in ((own, "Mixture"), (experts, "Experts, corrected, as Gaussians")):
        axes.plot([0, 1], [0, 1], color=BLACK, lw=0.8, ls=":", label="as promised")
        axes.set(xlabel="promised coverage", xlim=(0, 1), ylim=(0, 1))
        axes.set_title(title)
        axes.legend(loc="upper left")
    own.set_ylabel("share of true ages inside")
    num_images = max((item.n for item in reliability), default=0)
    fig.suptitle(f"Reliability of intervals, {num_images} {subtitle}", fontsize=11)
    save_figure(path, fig)


def plot_group_intervals(
    path: Path, intervals: Mapping[tuple[str, str], Measure], level: float, subtitle: str
) -> None:
    """Draw coverage and mean width of the intervals per true age group, with their n."""
    fig = figure(9, 4.2)
    coverage, width = fig.subplots(1, 2)
    for axes, metric, colour in ((coverage, "coverage", BLUE), (width, "width_years", GREEN)):
        for place, group in enumerate(AGE_GROUPS):
            _bar_with_interval(axes, place, intervals[metric, group], colour)
        ticks = [f"{group}\nn={intervals[metric, group].n}" for group in AGE_GROUPS]
        axes.set_xticks(range(len(AGE_GROUPS)), ticks, rotation=90)
        axes.set(xlabel="true age group", xlim=(-0.6, len(AGE_GROUPS) - 0.4))
        axes.grid(visible=False, axis="x")
    coverage.axhline(level, color=BLACK, lw=0.8, ls=":")
    overall = intervals["coverage", "all"].value
    shown = "" if overall is None else f", {overall:.1%} of all inside"
    coverage.set(ylabel="share of true ages inside", ylim=(0, 1))
    coverage.set_title(f"{level:.0%} intervals{shown}")
    width.set(ylabel="mean width (years)")
    width.set_title(f"Mean width, {subtitle}")
    save_figure(path, fig)


def plot_group_bias(path: Path, biases: Mapping[str, Mapping[str, Measure]], subtitle: str) -> None:
    """Draw estimate minus truth per true age group, of every corrected expert and the mixture.

    Args:
        path: PNG to write.
        biases: Measures by reader and age group; readers are the experts and `mixture`.
        subtitle: What the images are.
    """
    fig = figure(9, 4.4)
    axes = fig.subplots()
    names = [name for name in biases if name != _MIXTURE]
    offsets = np.linspace(-0.3, 0.3, len(biases))
    for place, group in enumerate(AGE_GROUPS):
        if all(by_group[group].value is None for by_group in biases.values()):
            _too_few(axes, place, 0.8)
    for offset, (reader, by_group) in zip(offsets, biases.items(), strict=True):
        colour, mark = _look(reader, names)
        label: str | None = reader
        for place, group in enumerate(AGE_GROUPS):
            item = by_group[group]
            if item.value is None:
                continue
            axes.errorbar(
                place + offset, item.value, yerr=_ends(item), color=colour, marker=mark, ms=4.5,
                lw=1, capsize=2, ls="", label=label,
            )  # fmt: skip
            label = None
    axes.axhline(0, color=BLACK, lw=0.8)
    for place in range(1, len(AGE_GROUPS)):
        axes.axvline(place - 0.5, color=GREY, lw=0.4)
    axes.set_xticks(range(len(AGE_GROUPS)), AGE_GROUPS)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="true age group", ylabel="estimate minus true age (years)")
    axes.set_xlim(-0.5, len(AGE_GROUPS) - 0.5)
    axes.set_title(f"Bias by true age group, 95% intervals, {subtitle}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(path, fig)


def plot_correlations(
    path: Path,
    names: Sequence[str],
    correlations: Mapping[tuple[str, str], Measure],
    subtitle: str,
) -> None:
    """Draw the correlation matrix of the experts' errors, with n in each cell."""
    size = len(names)
    values = np.full((size, size), np.nan)
    fig = figure(2.2 + 1.0 * size, 1.6 + 0.8 * size)
    axes = fig.subplots()
    for (first, second), item in correlations.items():
        i, j = names.index(first), names.index(second)
        value = np.nan if item.value is None else item.value
        values[i, j] = values[j, i] = value
        text = f"n={item.n}" if item.value is None else f"{value:.2f}\nn={item.n}"
        # Light text on the dark ends of the map.
        colour = "white" if abs(np.nan_to_num(value)) > 0.6 else "black"
        for x, y in ((i, j), (j, i)):
            axes.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)
    for i in range(size):
        values[i, i] = 1.0
        axes.text(i, i, "1", ha="center", va="center", fontsize=8, color="white")
    image = axes.imshow(values, vmin=-1, vmax=1, cmap="PuOr_r")
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), names)
    axes.grid(visible=False)
    axes.set_title(f"Correlation of errors,\n{subtitle}")
    fig.colorbar(image, ax=axes, shrink=0.8)
    save_figure(path, fig)


def plot_comparisons(path: Path, comparisons: Sequence["Comparison"], subtitle: str) -> None:
    """Draw the mixture's gain over each other estimate with its interval, as a forest plot.

    The gain over a hopeless expert would squeeze the rest: one far beyond the others is drawn at
    the edge, as an arrow beside its figure.
    """
    shown = [item for item in comparisons if item.gain.value is not None]
    fig = figure(8, 1.6 + 0.42 * max(1, len(shown)))
    axes = fig.subplots()
    gains = [item.gain.value or 0.0 for item in shown]
    edge = max(1.0, 3.0 * float(np.median(np.abs(gains)))) if gains else 1.0
    for row, item in enumerate(shown):
        place, gain = len(shown) - 1 - row, item.gain
        value = gain.value or 0.0
        colour = GREY if gain.low is None or gain.high is None else (
            BLUE if gain.low > 0 else RED if gain.high < 0 else GREY
        )  # fmt: skip
        text = f" {value:+.2f}"
        if gain.low is not None and gain.high is not None:
            text += f" ({gain.low:+.2f} to {gain.high:+.2f})"
        if abs(value) > edge:
            at = float(np.sign(value) * edge)
            axes.plot(at, place, ">" if value > 0 else "<", color=colour, ms=7)
        else:
            at = value
            axes.errorbar(
                value, place, xerr=_ends(gain), color=colour, marker="o", ms=5, capsize=3, ls=""
            )
        axes.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), fontsize=8,
                      va="center")  # fmt: skip
    axes.axvline(0, color=BLACK, lw=0.8)
    labels = [f"{_other(item)}, n={item.gain.n}" for item in reversed(shown)]
    axes.set_yticks(range(len(shown)), labels)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set(xlabel="gain of the mixture in absolute error (years); right of 0: mixture better")
    axes.set_title(f"Mixture against others, paired, 95% intervals, {subtitle}")
    save_figure(path, fig)


def plot_weights(
    path: Path,
    names: Sequence[str],
    weights: Mapping[tuple[str, str], Measure],
    subtitle: str,
) -> None:
    """Draw each expert's mean weight per true age group, stacked to 1."""
    fig = figure(9, 4)
    axes = fig.subplots()
    columns = (*AGE_GROUPS, "all")
    bottom = np.zeros(len(columns))
    hatches = ("", "//", "..", "\\\\", "xx", "++")
    for e, name in enumerate(names):
        heights = np.array([weights[name, group].value or 0.0 for group in columns])
        axes.bar(
            range(len(columns)), heights, 0.8, bottom=bottom, label=name, edgecolor="white",
            color=_EXPERT_COLOURS[e % len(_EXPERT_COLOURS)], hatch=hatches[e % len(hatches)],
            linewidth=0.5,
        )  # fmt: skip
        bottom += heights
    for place in np.flatnonzero(bottom == 0):
        _too_few(axes, float(place))
    first = names[0] if names else ""
    ticks = [f"{group}\nn={weights[first, group].n}" if first else group for group in columns]
    axes.set_xticks(range(len(columns)), ticks)
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="true age group", ylabel="mean weight", ylim=(0, 1))
    axes.set_title(f"Mean weight of each expert, {subtitle}")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(path, fig)


def _look(reader: str, names: Sequence[str]) -> tuple[str, str]:
    """Return the colour and the mark of a reader."""
    if reader not in names:
        return BLUE, "o"
    place = names.index(reader)
    return _EXPERT_COLOURS[place % len(_EXPERT_COLOURS)], _MARKS[place % len(_MARKS)]


def _bar_with_interval(axes: Any, place: float, item: Measure, colour: str) -> None:
    if item.value is None:
        _too_few(axes, place)
        return
    axes.bar(place, item.value, 0.7, color=colour, yerr=_ends(item), capsize=2,
             error_kw={"lw": 1})  # fmt: skip


def _too_few(axes: Any, place: float, height: float = 0.02) -> None:
    axes.text(
        place, height, "too few", rotation=90, ha="center", va="bottom", fontsize=8, color=GREY,
        transform=axes.get_xaxis_transform(),
    )  # fmt: skip


def _other(comparison: "Comparison") -> str:
    """Return what a comparison is with; of the best expert, who that is."""
    name = comparison.name.replace("_", " ")
    return f"{name} ({comparison.expert})" if comparison.expert else name


def _ends(item: Measure) -> np.ndarray | None:
    if item.value is None or item.low is None or item.high is None:
        return None
    # A percentile interval need not hold the value itself.
    return np.maximum(np.array([[item.value - item.low], [item.high - item.value]]), 0)
