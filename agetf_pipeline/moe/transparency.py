"""The mixture laid open: every figure as tables and plots, with its uncertainty and its reasons.

`moe_transparency.json` holds everything; the CSVs hold the same by subject, for spreadsheets. The
same input gives byte-identical tables.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agetf_pipeline.core.files import write_json, write_text
from agetf_pipeline.core.statistics import Measure, Sampling
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.moe import transparency_plots as plots
from agetf_pipeline.moe.calibration import Calibration
from agetf_pipeline.moe.comparison import BEST_EXPERT, Comparison, compare_all, verdict
from agetf_pipeline.moe.fitting import CalibrationData, CrossFitted
from agetf_pipeline.moe.metrics import (
    METRICS,
    MIXTURE,
    Reliability,
    calibration_error,
    error_correlations,
    estimates_of,
    mean_weights,
    measure_estimate,
    measure_intervals,
    reliabilities,
)

_DECIMALS = 6
_MEASURE_COLUMNS = ("value", "low", "high", "n", "num_identities", "unit", "synthetic", "reason")


@dataclass(frozen=True)
class Transparency:
    """Everything that is known about the mixture on images of known age.

    Attributes:
        level: Of the intervals.
        readers: Measures by reader, kind (`raw`, `corrected`, `mixture`), metric and age group.
        intervals: Measures by metric (`coverage`, `width_years`) and age group or `all`.
        reliability: Promised against real coverage, per kind of interval.
        calibration_errors: Mean distance of the two, by the same names.
        correlations: Of the corrected experts' errors, by pair.
        comparisons: The mixture against simpler ways.
        weights: Mean weights by expert and age group or `all`.
    """

    level: float
    readers: dict[tuple[str, str, str, str], Measure]
    intervals: dict[tuple[str, str], Measure]
    reliability: list[Reliability]
    calibration_errors: dict[str, Measure]
    correlations: dict[tuple[str, str], Measure]
    comparisons: list[Comparison]
    weights: dict[tuple[str, str], Measure]


def write_transparency(
    folder: Path,
    data: CalibrationData,
    fitted: CrossFitted,
    calibration: Calibration,
    level: float,
    seed: int,
    synthetic: bool,
) -> tuple[dict[str, float | None], dict[str, Path]]:
    """Measure the mixture and its experts; write tables and plots.

    Args:
        folder: Where to write.
        data: Labelled images, as the experts read them.
        fitted: The same images, read by calibrations that had not seen their identity.
        calibration: The calibration that is used from now on, for the record.
        level: Of the intervals, 0 to 1.
        seed: Of the bootstrap.
        synthetic: Whether the images are synthetic; every figure then says so.

    Returns:
        Flat figures for reports (None where one could not be computed), and the files by name.
    """
    sampling = Sampling(seed=seed, synthetic=synthetic)
    found = measure_transparency(data, fitted, level, sampling)
    files = _write_tables(folder, found, data, calibration, synthetic)
    files |= _write_plots(folder, found, data.names, synthetic)
    return flat_figures(found, data.names), files


def measure_transparency(
    data: CalibrationData,
    read: CrossFitted,
    level: float,
    sampling: Sampling,
    covariance_EE: np.ndarray | None = None,
) -> Transparency:
    """Measure everything.

    Args:
        data: Labelled images, as the experts read them.
        read: The same images, read by calibrations that had not seen their identity.
        level: Of the intervals.
        sampling: Of the bootstrap.
        covariance_EE: For stacking, from other identities; None: from the other folds.
    """
    people_N = data.identity_N
    estimates = estimates_of(data, read)
    readers = {
        (estimate.reader, estimate.kind, metric, group): item
        for estimate in estimates
        for (metric, group), item in measure_estimate(
            estimate, data.true_age_N, people_N, sampling
        ).items()
    }
    reliability = reliabilities(read, estimates)
    return Transparency(
        level=level,
        readers=readers,
        intervals=measure_intervals(read, people_N, sampling),
        reliability=reliability,
        calibration_errors={item.reader: calibration_error(item, sampling) for item in reliability},
        correlations=error_correlations(read, data.names, people_N, sampling),
        comparisons=compare_all(read, data.names, people_N, sampling, covariance_EE),
        weights=mean_weights(read, data.names, people_N, sampling),
    )


def flat_figures(found: Transparency, names: Sequence[str]) -> dict[str, float | None]:
    """Return the figures that reports show, rounded; intervals as `..._low` and `..._high`."""
    figures: dict[str, float | None] = {}

    def put(name: str, item: Measure, with_interval: bool = True) -> None:
        figures[name] = _rounded(item.value)
        if with_interval:
            figures[f"{name}_low"], figures[f"{name}_high"] = (
                _rounded(item.low),
                _rounded(item.high),
            )

    for metric in METRICS:
        put(f"mixture_{metric}", found.readers[MIXTURE, MIXTURE, metric, "all"])
    for name in names:
        put(f"{name}_raw_mae_years", found.readers[name, "raw", "mae_years", "all"], False)
        for metric in ("mae_years", "emd_years", "nll"):
            item = found.readers[name, "corrected", metric, "all"]
            put(f"{name}_corrected_{metric}", item, False)
        put(f"mean_weight_{name}", found.weights[name, "all"], False)
    put("interval_coverage", found.intervals["coverage", "all"])
    put("interval_width_years", found.intervals["width_years", "all"])
    coverages = [found.intervals["coverage", group].value for group in AGE_GROUPS]
    figures["lowest_group_coverage"] = _rounded(
        min((value for value in coverages if value is not None), default=None)
    )
    for name, item in found.calibration_errors.items():
        if name in ("conformal", MIXTURE):
            put(f"{name}_calibration_error", item, False)
    for comparison in found.comparisons:
        if comparison.name not in names:
            put(f"gain_over_{comparison.name}_years", comparison.gain)
    worst = [item.worst_group_gain for item in found.comparisons if item.name == BEST_EXPERT]
    if worst:
        put("worst_group_gain_over_best_expert_years", worst[0])
    return figures


def _write_tables(
    folder: Path,
    found: Transparency,
    data: CalibrationData,
    calibration: Calibration,
    synthetic: bool,
) -> dict[str, Path]:
    metrics = _rows(("reader", "kind", "metric", "age_group"), found.readers)
    metrics += _rows(
        ("reader", "kind", "metric", "age_group"),
        {("interval", "conformal", *key): item for key, item in found.intervals.items()},
    )
    metrics += _rows(
        ("reader", "kind", "metric", "age_group"),
        {
            (name, "interval", "calibration_error", "all"): item
            for name, item in found.calibration_errors.items()
        },
    )
    tables = {
        "moe_metrics": metrics,
        "moe_reliability": [
            {
                "interval": item.reader, "level": float(level), "coverage": _rounded(float(inside)),
                "n": item.n, "synthetic": synthetic,
            }
            for item in found.reliability
            for level, inside in zip(item.levels_L, item.coverage_L, strict=True)
        ],
        "moe_error_correlation": _rows(("first", "second"), found.correlations),
        "moe_comparison": [
            row for comparison in found.comparisons for row in _comparison_rows(comparison)
        ],
        "moe_weights": _rows(("expert", "age_group"), found.weights),
    }  # fmt: skip
    files = {}
    for name, rows in tables.items():
        files[f"{name}_csv"] = folder / f"{name}.csv"
        write_text(files[f"{name}_csv"], _csv(rows))
    files["moe_transparency_json"] = folder / "moe_transparency.json"
    write_json(
        files["moe_transparency_json"],
        {
            "about": "Each image was read by a calibration that had not seen its identity.",
            "synthetic": synthetic,
            "interval_level": found.level,
            "num_images": len(data.true_age_N),
            "num_identities": len(set(data.identity_N.tolist())),
            "experts": dict(zip(data.names, data.model_versions, strict=True)),
            "calibration_version": calibration.version,
            **tables,
        },
    )
    return files


def _write_plots(
    folder: Path, found: Transparency, names: Sequence[str], synthetic: bool
) -> dict[str, Path]:
    word = "synthetic faces" if synthetic else "labelled faces"
    files = {
        name: folder / f"{name}.png"
        for name in (
            "moe_reliability_diagram", "moe_intervals", "moe_bias", "moe_error_correlation",
            "moe_comparison", "moe_weights",
        )
    }  # fmt: skip
    plots.plot_reliability_curves(
        files["moe_reliability_diagram"], found.reliability, found.calibration_errors, word
    )
    plots.plot_group_intervals(files["moe_intervals"], found.intervals, found.level, word)
    biases = {
        reader: {group: found.readers[reader, kind, "bias_years", group] for group in AGE_GROUPS}
        for reader, kind in [*((name, "corrected") for name in names), (MIXTURE, MIXTURE)]
    }
    plots.plot_group_bias(files["moe_bias"], biases, word)
    plots.plot_correlations(files["moe_error_correlation"], names, found.correlations, word)
    plots.plot_comparisons(files["moe_comparison"], found.comparisons, word)
    plots.plot_weights(files["moe_weights"], names, found.weights, word)
    return {f"{name}_plot": path for name, path in files.items()}


def _rows(keys: Sequence[str], measures: Mapping[tuple[str, ...], Measure]) -> list[dict[str, Any]]:
    return [
        {**dict(zip(keys, key, strict=True)), **_fields(item)} for key, item in measures.items()
    ]


def _comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    measures = {
        ("other_mae_years", "all"): comparison.other_mae,
        ("mixture_mae_years", "all"): comparison.mixture_mae,
        ("gain_years", "all"): comparison.gain,
        ("worst_group_gain_years", "all"): comparison.worst_group_gain,
        **{("gain_years", group): item for group, item in comparison.group_gains.items()},
    }
    return [
        {
            "other": comparison.name,
            "about": comparison.about,
            "metric": metric,
            "age_group": group,
            "verdict": verdict(item) if "gain" in metric else "",
            **_fields(item),
        }
        for (metric, group), item in measures.items()
    ]


def _fields(item: Measure) -> dict[str, Any]:
    values = item.as_dict()
    values |= {name: _rounded(values[name]) for name in ("value", "low", "high")}
    return {name: values[name] for name in _MEASURE_COLUMNS}


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), _DECIMALS)


def _csv(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
