"""Pictures and the cost table of the ageing benchmark. Every face in them is synthetic."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agetf_pipeline.age_transformer.grid import save_grid
from agetf_pipeline.core.plotting import BLUE, ORANGE, figure, save_figure
from benchmarks.ageing_data import Series
from benchmarks.ageing_measures import NEAREST, OURS, UNET
from benchmarks.ageing_training import Curve, Trained

_COLOURS = {OURS: BLUE, UNET: ORANGE}
_YS = {"psnr": "PSNR to the truth (dB)", "age_mae_years": "age MAE (years)"}


def draw_curves(path: Path, curves: Mapping[str, Curve]) -> None:
    """Draw validation PSNR and age error over images seen and over CPU-minutes."""
    fig = figure(8.4, 5.6)
    fig.suptitle("Validation, synthetic people outside training", fontsize=11)
    axes = fig.subplots(2, 2)
    xs = {"num_images": ("images seen, thousands", 1e-3), "cpu_s": ("CPU-minutes", 1 / 60)}
    for row, (metric, label) in enumerate(_YS.items()):
        for column, (key, (words, factor)) in enumerate(xs.items()):
            panel = axes[row, column]
            for name, curve in curves.items():
                x = [point[key] * factor for point in curve]
                y = [point[metric] for point in curve]
                panel.plot(x, y, marker="o", markersize=3, color=_COLOURS[name], label=name)
            panel.set_xlabel(words)
            panel.set_ylabel(label)
            panel.set_xlim(left=0)
    axes[0, 0].legend()
    save_figure(path, fig)


def draw_grid(
    path: Path,
    test: Series,
    renderings: Mapping[str, np.ndarray],
    ages: Sequence[float],
    num_people: int,
) -> None:
    """Draw sources, the truth at every age, and what each method makes of it.

    People are taken in the order of drawing, not chosen; sources alternate between the younger
    and the older.
    """
    chosen = [2 * person + person % 2 for person in range(min(num_people, len(test.sources)))]
    rows = {"truth": test.targets, OURS: renderings[OURS], UNET: renderings[UNET],
            NEAREST: renderings[NEAREST]}  # fmt: skip
    source_ages = test.source_ages.ravel()
    save_grid(
        path,
        np.stack([test.faces[index] for index in chosen for _ in rows]),
        np.stack([images[index] for index in chosen for images in rows.values()]),
        ages,
        row_labels=[f"{name}, from {source_ages[index]:.0f}" for index in chosen for name in rows],
        footer="synthetic faces of people outside training; not selected",
        cell_px=96,
    )


def cost_table(costs: Mapping[str, Mapping[str, Any]], trained: Mapping[str, Trained]) -> str:
    """Return what each method costs, as a Markdown table."""
    lines = [
        "| cost | parameters | GFLOP for ten ages | CPU-seconds for ten ages | images seen in "
        "training | renderings in training | CPU-minutes of training |",
        "|---" * 7 + "|",
    ]
    for name, cost in costs.items():
        curve = trained[name].curve if name in trained else None
        last = curve[-1] if curve else None
        seen = "-" if last is None else f"{last['num_images']:,.0f}"
        drawn = "-" if last is None else f"{last['num_renderings']:,.0f}"
        spent = "-" if last is None else f"{last['cpu_s'] / 60:.1f}"
        lines.append(
            f"| {name} | {cost['num_parameters']:,} | {cost['gflop']:.2f} | {cost['cpu_s']:.3f} | "
            f"{seen} | {drawn} | {spent} |"
        )
    return "\n".join(lines) + "\n"
