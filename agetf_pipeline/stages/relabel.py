"""Labels by the mixture of experts: calibrated on labelled subjects, applied to every image.

Reads every partition of `predictions` and `images`; writes one partition of `labels` for each, the
calibration, the label exports of FFHQ-Aging, a report per age group, and two plots.
"""

from pathlib import Path

import numpy as np
import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace
from agetf_pipeline.data.schemas import IMAGES, LABELS, PREDICTIONS
from agetf_pipeline.data.splits import identity_of, split_of
from agetf_pipeline.data.tables import (
    empty_frame,
    list_partitions,
    read_table,
    table_hashes,
    table_path,
    write_table,
)
from agetf_pipeline.stages.base import StageReport, run_once

STAGE = "relabel"
CODE_VERSION = "1"
CALIBRATION_SPLIT = "calibration"


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Calibrate the mixture and label every image that has predictions.

    Raises:
        StageError: There are no predictions, or those of an expert come from several versions.
    """
    partitions = list_partitions(workspace, PREDICTIONS)
    if not partitions:
        raise StageError(
            "Expected predictions of the experts; found none. Run the stage 'predict' for every "
            "partition first."
        )
    given = _given_calibration(config, workspace)
    inputs = table_hashes(workspace, PREDICTIONS) | table_hashes(workspace, IMAGES, partitions)
    if given is not None:
        inputs["calibration"] = hash_file(given)
    settings = {
        "synthetic": config.synthesize.enabled,
        "relabel": config.relabel.settings(),
        "split_seed": config.train_experts.split_seed,
        "split_fractions": config.train_experts.split_fractions,
    }

    def work() -> StageReport:
        return _relabel(config, workspace, partitions, given)

    return run_once(workspace, STAGE, settings, CODE_VERSION, inputs, work)


def _relabel(
    config: PipelineConfig, workspace: Workspace, partitions: list[str], given: Path | None
) -> StageReport:
    from agetf_pipeline.moe.calibration import load_calibration
    from agetf_pipeline.moe.export import export_records, group_report, write_exports
    from agetf_pipeline.moe.fitting import fit_calibration
    from agetf_pipeline.moe.labels import label_predictions
    from agetf_pipeline.moe.plots import plot_ages, plot_reliability

    predictions_of = {name: _read_predictions(workspace, name) for name in partitions}
    images_of = {name: read_table(workspace, IMAGES, [name]) for name in partitions}
    predictions, images = pl.concat(predictions_of.values()), pl.concat(images_of.values())
    _check_one_version(predictions_of)
    experts = sorted(predictions["expert"].unique().to_list())
    messages: list[str] = []
    outputs: dict[str, str] = {}
    figures: dict[str, float | None] = {}
    calibration_path = workspace.models / "moe" / "calibration.json"
    reliability_path = workspace.stats / "moe_reliability.png"
    reliability_path.unlink(missing_ok=True)  # one of other data must not stay
    synthetic = config.synthesize.enabled
    corpus = "synthetic faces" if synthetic else "labelled CAF subjects"
    if given is not None:
        calibration = load_calibration(given)
        messages.append(f"the calibration was made elsewhere: {given}")
        if calibration.interval_level != config.relabel.interval_level:
            messages.append(
                f"intervals are at its level, {calibration.interval_level}, not at "
                f"relabel.interval_level={config.relabel.interval_level}"
            )
    else:
        data = _calibration_data(config, predictions, images)
        calibration, fitted = fit_calibration(
            data,
            config.relabel.min_experts,
            config.relabel.interval_level,
            config.relabel.min_calibration_images,
            config.relabel.seed,
        )
        calibration = calibration.model_copy(
            update={"trained_on": "synthetic" if synthetic else "workspace corpus"}
        )
        if fitted is not None:
            figures |= _crossfitted_figures(data, fitted)
            plot_reliability(reliability_path, fitted, calibration.interval_level, corpus)
            outputs["reliability_plot"] = workspace.relative(reliability_path)
    messages += _calibration_messages(calibration)
    figures |= {
        "tau": calibration.tau,
        "conformal_quantile": calibration.conformal_quantile,
        **{f"mu_{name}": expert.mu for name, expert in calibration.experts.items()},
    }
    calibration.save(calibration_path)
    outputs["calibration"] = workspace.relative(calibration_path)

    frames: dict[str, pl.DataFrame] = {}
    for partition in partitions:
        frames[partition] = label_predictions(
            predictions_of[partition], images_of[partition], calibration, config.relabel
        )
        path = write_table(workspace, LABELS, partition, frames[partition])
        outputs[f"labels/{partition}"] = workspace.relative(path)
    messages += _remove_stale(workspace, partitions)

    ffhq = frames.get(FFHQ_PARTITION, empty_frame(LABELS))
    ffhq_images = images_of.get(FFHQ_PARTITION, empty_frame(IMAGES))
    if FFHQ_PARTITION not in frames:
        messages.append("there is no FFHQ-Aging partition: its exports and report hold no image")
    json_path = workspace.processed / "ffhq_aging_moe_labels.json"
    csv_path = json_path.with_suffix(".csv")
    report_csv = workspace.stats / "ffhq_aging_moe_report.csv"
    histogram = workspace.stats / "ffhq_aging_age_histogram.png"
    write_exports(export_records(ffhq, ffhq_images), experts, json_path, csv_path)
    write_text(report_csv, group_report(ffhq, experts).write_csv())
    plot_ages(histogram, ffhq, "synthetic faces" if synthetic else "FFHQ-Aging")
    outputs |= {
        "labels_json": workspace.relative(json_path),
        "labels_csv": workspace.relative(csv_path),
        "report_csv": workspace.relative(report_csv),
        "age_histogram": workspace.relative(histogram),
    }
    labels = pl.concat(frames.values())
    counts = {"images": labels.height, "experts": len(experts)}
    counts |= {
        decision: int((labels["decision"] == decision).sum())
        for decision in ("keep", "relabel", "none", "unlabelled")
    }
    counts["calibration_images"] = calibration.num_images
    counts["calibration_subjects"] = calibration.num_identities
    if counts["unlabelled"]:
        messages.append(
            f"{counts['unlabelled']} of {labels.height} images have no label: fewer than "
            f"{config.relabel.min_experts} experts answered (see the column 'reason')"
        )
    return StageReport(STAGE, counts=counts, figures=figures, outputs=outputs, messages=messages)


def _given_calibration(config: PipelineConfig, workspace: Workspace) -> Path | None:
    name = config.relabel.calibration_path
    if name is None:
        return None
    path = workspace.resolve(name)
    if not path.is_file():
        raise StageError(
            f"Expected a calibration at {path} (relabel.calibration_path); found nothing. Give an "
            "existing file, or null to fit one."
        )
    return path


def _read_predictions(workspace: Workspace, partition: str) -> pl.DataFrame:
    # The distributions are by far the widest column, and the mixture does not read them.
    return read_table(workspace, PREDICTIONS, [partition]).drop("distribution", "valid_mass")


def _check_one_version(predictions_of: dict[str, pl.DataFrame]) -> None:
    """A calibration holds for one version of each expert; rows of an older one must not mix in."""
    found = pl.concat(
        frame.select("expert", "model_version", partition=pl.lit(partition)).unique()
        for partition, frame in predictions_of.items()
    )
    several = found.group_by("expert").agg(pl.col("model_version").n_unique())
    mixed = several.filter(pl.col("model_version") > 1)["expert"].to_list()
    if mixed:
        rows = found.filter(pl.col("expert").is_in(mixed)).sort(pl.all())
        listed = "; ".join(f"{row[0]} {row[1]} in {row[2]}" for row in rows.iter_rows())
        raise StageError(
            f"Expected predictions of one version of each expert; found {listed}. Run the stage "
            "'predict' for the partitions that are behind."
        )


def _calibration_data(config: PipelineConfig, predictions: pl.DataFrame, images: pl.DataFrame):
    """Return what the experts read of labelled subjects that trained none of them."""
    from agetf_pipeline.moe.fitting import CalibrationData
    from agetf_pipeline.moe.labels import expert_matrix

    seed, fractions = config.train_experts.split_seed, config.train_experts.split_fractions
    known = images.filter(
        pl.col("true_age_years").is_finite() & pl.col("subject").is_not_null()
    ).unique("image_id", keep="first", maintain_order=True)
    identities = [
        identity_of(*row) for row in known.select("partition", "image_id", "subject").iter_rows()
    ]
    chosen = [split_of(name, fractions, seed) == CALIBRATION_SPLIT for name in identities]
    rows = known.with_columns(identity=pl.Series(identities, dtype=pl.String)).filter(
        pl.Series(chosen, dtype=pl.Boolean)
    ).sort("image_id")  # fmt: skip
    readings = predictions.unique(["image_id", "expert"], keep="first", maintain_order=True)
    matrix = expert_matrix(readings, rows["image_id"].to_list())
    version_of = dict(readings.select("expert", "model_version").unique().iter_rows())
    return CalibrationData(
        matrix.names,
        [version_of[name] for name in matrix.names],
        matrix.age_NE,
        matrix.sigma_NE,
        matrix.ok_NE,
        rows["true_age_years"].to_numpy().astype(np.float64),
        rows["identity"].to_numpy(),
    )


def _crossfitted_figures(data, fitted) -> dict[str, float | None]:
    """Errors and coverage on calibration images whose subject the calibration had not seen."""
    from agetf_pipeline.moe.report import age_figures, mae_years

    truth = fitted.true_age_N
    mixture = age_figures(truth, fitted.age_N, fitted.low_N, fitted.high_N)
    raw_NE = np.where(data.ok_NE, data.age_NE, np.nan)
    answered_NE = np.isfinite(fitted.expert_age_NE)
    taken_E = answered_NE.any(axis=0)
    # Compared where every expert answered: otherwise the mixture pays for images that the best
    # expert alone would have left without an age.
    common = np.isfinite(fitted.age_N) & answered_NE[:, taken_E].all(axis=1)
    expert_ages = fitted.expert_age_NE[common][:, taken_E]
    alone = [mae_years(truth[common], column) for column in expert_ages.T]
    best = min((value for value in alone if value is not None), default=None)
    both = mae_years(truth[common], fitted.age_N[common])
    figures: dict[str, float | None] = {
        "mixture_mae_years_crossfitted": mixture.mae_years,
        "mixture_bias_years_crossfitted": mixture.bias_years,
        "mixture_cs5_crossfitted": mixture.cs5,
        "interval_coverage_crossfitted": mixture.coverage,
        "mixture_to_best_expert_mae_ratio_crossfitted": both / best if both and best else None,
        "equal_mean_mae_years_crossfitted": (
            mae_years(truth[common], expert_ages.mean(axis=1)) if common.any() else None
        ),
        "median_mae_years_crossfitted": (
            mae_years(truth[common], np.median(expert_ages, axis=1)) if common.any() else None
        ),
    }
    for e, name in enumerate(data.names):
        figures[f"{name}_mae_years_uncorrected"] = mae_years(truth, raw_NE[:, e])
        figures[f"{name}_mae_years_crossfitted"] = mae_years(truth, fitted.expert_age_NE[:, e])
    return {name: None if value is None else round(value, 4) for name, value in figures.items()}


def _calibration_messages(calibration) -> list[str]:
    messages = []
    if not calibration.calibrated:
        messages.append(
            f"the mixture is not calibrated: {calibration.reason}. Experts are taken at their "
            "word, intervals are Gaussian and unchecked, and every label says calibrated=false"
        )
    elif calibration.conformal_quantile is None:
        messages.append(
            f"{calibration.num_images} calibration images are too few for a conformal interval at "
            f"level {calibration.interval_level}: intervals are Gaussian"
        )
    messages += [
        f"{name} has no weight: it {expert.reason}"
        for name, expert in calibration.experts.items()
        if not expert.usable
    ]
    return messages


def _remove_stale(workspace: Workspace, partitions: list[str]) -> list[str]:
    stale = sorted(set(list_partitions(workspace, LABELS)) - set(partitions))
    for partition in stale:
        table_path(workspace, LABELS, partition).unlink()
    return [f"labels of {name} were removed: it has no predictions any more" for name in stale]
