"""What is measured of renderings whose truth is known, and who is better than whom.

Every source is rendered at ten ages. A figure is the mean over all of them; its interval comes
from drawing whole people (bootstrap). "Better" is said of a paired difference, source by source,
whose interval lies above 0.

Shapes: N sources, A ages, S side, D embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agetf_pipeline.core.statistics import Measure, Sampling, absent, measure_mean, spearman
from agetf_pipeline.evaluation.image_metrics import psnr, ssim
from agetf_pipeline.evaluation.judges import Judge, embed, read_ages
from benchmarks.ageing_data import Series
from benchmarks.ageing_networks import COPY, NEAREST, OURS, UNET, perceptual_distance

BASELINES = (COPY, NEAREST, UNET)
NO_LPIPS = "LPIPS needs AlexNet's weights, which no part of this benchmark has"


@dataclass(frozen=True)
class Metric:
    """A figure: its unit, whether more of it is better, and what it says."""

    unit: str
    higher: bool
    about: str


METRICS: dict[str, Metric] = {
    "psnr": Metric("dB", True, "PSNR to the truth, dB"),
    "ssim": Metric("", True, "SSIM to the truth"),
    "perceptual": Metric("", False, "synthetic perceptual distance to the truth"),
    "age_mae_years": Metric("years", False, "age MAE by the held-out estimator, years"),
    "id_to_truth": Metric("", True, "identity similarity to the truth"),
    "id_to_source": Metric("", True, "identity similarity to the source"),
    "age_spearman": Metric("", True, "order of ages (Spearman, per face)"),
}
"""Every figure, in the order of the table."""

WANTED: dict[str, tuple[str, ...]] = {
    "psnr": BASELINES,
    "ssim": BASELINES,
    "perceptual": BASELINES,
    "age_mae_years": (COPY, UNET),
    "id_to_truth": (NEAREST, UNET),
}
"""Baselines that the AgeTransformer has to beat, by figure."""

BY_CONSTRUCTION: dict[tuple[str, str], str] = {
    (COPY, "id_to_source"): "a copy is the source: its similarity is 1",
    (COPY, "age_spearman"): "a copy reads alike at all ages: no order is defined",
    (NEAREST, "age_mae_years"): "its faces are drawn within 4 years of that age: its error is "
    "about the estimator's own",
    (NEAREST, "age_spearman"): "its faces are drawn at those ages",
}
"""What no model could be better at, or what could be said of none."""


def measure_each(
    renderings_NA: np.ndarray, truth: Series, ages_A: np.ndarray, judges: tuple[Judge, Judge]
) -> dict[str, np.ndarray]:
    """Measure a method's renderings.

    Args:
        renderings_NA: uint8 (N, A, S, S, 3).
        truth: The sources and their truth.
        ages_A: The ages asked for.
        judges: Held-out age estimator and identity embedder.

    Returns:
        Per metric, float64 (N,): each source's mean over its ages.
    """
    N, A = renderings_NA.shape[:2]
    age_judge, identity_judge = judges
    flat = renderings_NA.reshape(N * A, *renderings_NA.shape[2:])
    target = truth.targets.reshape(flat.shape)
    read_NA = read_ages(age_judge, flat).reshape(N, A)
    z_NAD = embed(identity_judge, flat).reshape(N, A, -1)
    target_NAD = embed(identity_judge, target).reshape(N, A, -1)
    source_ND = embed(identity_judge, truth.faces)
    each = {
        "psnr": psnr(flat, target).reshape(N, A),
        "ssim": ssim(flat, target).reshape(N, A),
        "perceptual": perceptual_distance(identity_judge, flat, target).reshape(N, A),
        "age_mae_years": np.abs(read_NA - ages_A),
        "id_to_truth": (z_NAD * target_NAD).sum(axis=2),
        "id_to_source": (z_NAD * source_ND[:, None]).sum(axis=2),
    }
    means = {name: values.mean(axis=1) for name, values in each.items()}
    means["age_spearman"] = np.array([spearman(ages_A, row) for row in read_NA])
    return means


def summarise(
    each: Mapping[str, Mapping[str, np.ndarray]], people: np.ndarray, sampling: Sampling
) -> dict[str, dict[str, Measure]]:
    """Return every figure of every method with its interval; LPIPS is absent, with the reason."""
    found: dict[str, dict[str, Measure]] = {}
    for method, values in each.items():
        found[method] = {
            name: measure_mean(values[name], people, sampling, metric.unit)
            if np.isfinite(values[name]).all()
            else absent(BY_CONSTRUCTION.get((method, name), "not defined"), metric.unit)
            for name, metric in METRICS.items()
        }
        found[method]["lpips"] = absent(NO_LPIPS, synthetic=True)
    return found


def compare(
    each: Mapping[str, Mapping[str, np.ndarray]], people: np.ndarray, sampling: Sampling
) -> list[dict[str, Any]]:
    """Return the paired gains of the AgeTransformer over each baseline, above 0 where it is better.

    Each row: metric, baseline, gain (a `Measure` as a dict), verdict (`better`, `worse`, `no
    difference shown`, `not defined`), whether it is wanted, and a note.
    """
    rows = []
    for name, metric in METRICS.items():
        for baseline in BASELINES:
            ours, other = each[OURS][name], each[baseline][name]
            gain = (ours - other) if metric.higher else (other - ours)
            note = BY_CONSTRUCTION.get((baseline, name), "")
            if np.isfinite(gain).all():
                measured = measure_mean(gain, people, sampling, metric.unit)
            else:
                measured = absent(note or "not defined", metric.unit)
            rows.append(
                {
                    "metric": name,
                    "baseline": baseline,
                    "gain": measured.as_dict(),
                    "verdict": verdict(measured),
                    "wanted": baseline in WANTED.get(name, ()),
                    "note": note,
                }
            )
    return rows


def verdict(gain: Measure) -> str:
    """Return what an interval of a gain says."""
    if gain.low is None or gain.high is None:
        return "not defined"
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "no difference shown"


def real_figures(
    truth: Series, ages_A: np.ndarray, judges: tuple[Judge, Judge], sampling: Sampling
) -> dict[str, Measure]:
    """Measure the evaluators on drawn test faces: what a perfect rendering would be given."""
    perfect = measure_each(truth.targets, truth, ages_A, judges)
    names = {
        "age_mae_years": "the estimator's own error on the true faces",
        "id_to_source": "similarity of the true pairs, source and truth",
        "age_spearman": "order of the ages read from the true faces",
    }
    return {
        name: measure_mean(perfect[name], truth.people, sampling, METRICS[name].unit)
        for name in names
    }


def markdown_table(
    found: Mapping[str, Mapping[str, Measure]],
    real: Mapping[str, Measure],
    rows: list[dict[str, Any]],
) -> str:
    """Return the figures, and the gains over each baseline, as two Markdown tables."""
    methods = (OURS, *BASELINES)
    lines = [
        "| synthetic, held-out people | " + " | ".join(methods) + " | the truth itself |",
        "|---" * (len(methods) + 2) + "|",
    ]
    for name, metric in METRICS.items():
        cells = [_cell(found[method][name]) for method in methods]
        lines.append(f"| {metric.about} | {' | '.join(cells)} | {_cell(real.get(name))} |")
    lines += ["", "| gain of the AgeTransformer over | " + " | ".join(BASELINES) + " |",
              "|---" * (len(BASELINES) + 1) + "|"]  # fmt: skip
    for name, metric in METRICS.items():
        of_metric = {row["baseline"]: row for row in rows if row["metric"] == name}
        cells = [_gain_cell(of_metric[baseline]) for baseline in BASELINES]
        lines.append(f"| {metric.about} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(measured: Measure | None) -> str:
    if measured is None or measured.value is None:
        return "-"
    if measured.low is None or measured.high is None:
        return f"{measured.value:.3g}"
    return f"{_number(measured.value)} ({_number(measured.low)} to {_number(measured.high)})"


def _gain_cell(row: dict[str, Any]) -> str:
    gain = row["gain"]
    if gain["low"] is None:
        return row["verdict"]
    interval = f"{gain['value']:+.3g} ({gain['low']:+.3g} to {gain['high']:+.3g})"
    return f"{interval}, {'**better**' if row['verdict'] == 'better' else row['verdict']}"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 1.5 else f"{value:.3f}"
