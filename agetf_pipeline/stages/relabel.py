"""Labels by the mixture of experts: calibrated on labelled subjects, applied to every image.

Reads every partition of `predictions` and `images`, a slice at a time; writes one partition of
`labels` for each, the calibration, the label exports of FFHQ-Aging, a report per age group, what
the calibration is worth, the labels to review, and a run in MLflow.
"""

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.work import is_planning
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace
from agetf_pipeline.data.schemas import IMAGES, LABEL_DECISIONS, LABELS, PREDICTIONS
from agetf_pipeline.data.tables import (
    list_partitions,
    table_hashes,
    table_path,
)
from agetf_pipeline.data.trained_on import trained_on_path, write_trained_on
from agetf_pipeline.moe.labelling import LabelCounts, label_partition
from agetf_pipeline.moe.readings import calibration_data, calibration_images, expert_versions
from agetf_pipeline.stages.base import StageReport, run_once

if TYPE_CHECKING:
    from agetf_pipeline.moe.calibration import Calibration
    from agetf_pipeline.moe.labelling import LabelledPartition

_LOGGER = logging.getLogger(__name__)
STAGE = "relabel"
CODE_VERSION = "5"


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Calibrate the mixture and label every image that has predictions.

    Raises:
        StageError: There are no predictions.
        DataError: Predictions of an expert come from several versions, or do not go with a
            calibration that was given.
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

    report = run_once(workspace, STAGE, settings, CODE_VERSION, inputs, work)
    if report.status == "skipped" and config.relabel.log_to_mlflow and not is_planning():
        return _logged_by_now(config, workspace, report)
    return report


def _logged_by_now(
    config: PipelineConfig, workspace: Workspace, report: StageReport
) -> StageReport:
    """Log what MLflow did not take when the labels were made; say so where it still does not."""
    from agetf_pipeline.registry.label_run import catch_up, is_lost, pending_path

    if is_lost(workspace, report.messages):
        _LOGGER.warning("%s: what was to be logged in MLflow is lost; made anew", STAGE)
        again = dataclasses.replace(report, messages=[])
        _log(config, workspace, again)
        return dataclasses.replace(report, messages=[*report.messages, *again.messages])
    if not pending_path(workspace).exists():
        return report
    why_not = catch_up(workspace, config.register_model.tracking_uri)
    if why_not is None:
        return report
    _LOGGER.warning("%s: %s", STAGE, why_not)
    return dataclasses.replace(report, messages=[*report.messages, why_not])


def _relabel(
    config: PipelineConfig, workspace: Workspace, partitions: list[str], given: Path | None
) -> StageReport:
    versions = expert_versions(workspace, partitions)
    experts = list(versions)
    report = StageReport(STAGE)
    calibration = _calibrate(config, workspace, partitions, versions, given, report)
    with Progress("relabel", len(partitions)) as progress:
        counts, ffhq = LabelCounts(), None
        for partition in partitions:
            is_ffhq = partition == FFHQ_PARTITION
            labelled = label_partition(
                workspace, partition, experts, calibration, config.relabel, keep_rows=is_ffhq
            )
            counts.merge(labelled.counts)
            ffhq = labelled if is_ffhq else ffhq
            report.outputs[f"labels/{partition}"] = workspace.relative(labelled.path)
            progress.advance()
    report.messages.extend(_remove_stale(workspace, partitions))
    _write_ffhq(config, workspace, ffhq, experts, report)

    report.counts.update(images=counts.num_images, experts=len(experts))
    report.counts.update({name: counts.decisions[name] for name in LABEL_DECISIONS})
    report.counts.update(
        calibration_images=calibration.num_images, calibration_subjects=calibration.num_identities
    )
    report.messages.extend(_silent_experts(counts, experts))
    if num_unlabelled := report.counts["unlabelled"]:
        report.messages.append(
            f"{num_unlabelled} of {counts.num_images} images have no label: fewer than "
            f"{config.relabel.min_experts} experts answered (see the column 'reason')"
        )
    if config.relabel.log_to_mlflow:
        _log(config, workspace, report)
    return report


def _calibrate(
    config: PipelineConfig,
    workspace: Workspace,
    partitions: list[str],
    versions: dict[str, str],
    given: Path | None,
    report: StageReport,
) -> "Calibration":
    """Fit or load the mixture's calibration, and write it; what it is worth goes to the report."""
    from agetf_pipeline.moe.calibration import load_calibration
    from agetf_pipeline.moe.fitting import fit_calibration
    from agetf_pipeline.moe.plots import plot_reliability
    from agetf_pipeline.moe.transparency import write_transparency

    section, synthetic = config.relabel, config.synthesize.enabled
    path = workspace.models / "moe" / "calibration.json"
    reliability_path = workspace.stats / "moe_reliability.png"
    # What was measured on other data must not stay.
    reliability_path.unlink(missing_ok=True)
    shutil.rmtree(workspace.stats / "moe", ignore_errors=True)
    if given is not None:
        calibration = load_calibration(given)
        report.messages.append(f"the calibration was made elsewhere: {given}")
        if calibration.interval_level != section.interval_level:
            report.messages.append(
                f"its intervals are of level {calibration.interval_level}; "
                f"relabel.interval_level={section.interval_level} has no effect"
            )
    else:
        known = calibration_images(config, workspace, partitions)
        data = calibration_data(workspace, partitions, versions, known)
        calibration, fitted = fit_calibration(
            data,
            section.min_experts,
            section.interval_level,
            section.min_calibration_images,
            section.seed,
        )
        calibration = calibration.model_copy(
            update={"trained_on": "synthetic" if synthetic else "workspace corpus"}
        )
        if fitted is not None:
            corpus = "synthetic faces" if synthetic else "labelled CAF subjects"
            figures, files = write_transparency(
                workspace.stats / "moe", data, fitted, calibration, section.interval_level,
                section.seed, synthetic,
            )  # fmt: skip
            report.figures.update(figures)
            report.outputs.update({name: workspace.relative(file) for name, file in files.items()})
            plot_reliability(reliability_path, fitted, calibration.interval_level, corpus)
            report.outputs["reliability_plot"] = workspace.relative(reliability_path)
    report.messages.extend(_calibration_messages(calibration))
    report.figures.update(
        tau=calibration.tau,
        conformal_quantile=calibration.conformal_quantile,
        **{f"mu_{name}": expert.mu for name, expert in calibration.experts.items()},
    )
    if given is None:
        learned_from = write_trained_on(path, known["image_id"])
        report.outputs["calibration_trained_on"] = workspace.relative(learned_from)
    else:
        trained_on_path(path).unlink(missing_ok=True)
    calibration.save(path)
    report.outputs["calibration"] = workspace.relative(path)
    return calibration


def _write_ffhq(
    config: PipelineConfig,
    workspace: Workspace,
    labelled: "LabelledPartition | None",
    experts: list[str],
    report: StageReport,
) -> None:
    """Write the exports, the report per age group and the histogram of FFHQ-Aging."""
    from agetf_pipeline.moe.export import group_report, write_exports
    from agetf_pipeline.moe.labelling import nothing_labelled, records_by_path
    from agetf_pipeline.moe.plots import plot_ages

    if labelled is None:
        report.messages.append(
            "there is no FFHQ-Aging partition: its exports and report hold no image"
        )
    json_path = workspace.processed / "ffhq_aging_moe_labels.json"
    csv_path = json_path.with_suffix(".csv")
    report_csv = workspace.stats / "ffhq_aging_moe_report.csv"
    histogram = workspace.stats / "ffhq_aging_age_histogram.png"
    records = iter(()) if labelled is None else records_by_path(workspace, FFHQ_PARTITION)
    summary = nothing_labelled(experts) if labelled is None else labelled.summary
    write_exports(records, experts, json_path, csv_path)
    write_text(report_csv, group_report(summary, experts).write_csv())
    corpus = "synthetic faces" if config.synthesize.enabled else "FFHQ-Aging"
    plot_ages(histogram, summary, corpus)
    _write_issues(config, workspace, labelled, report)
    report.outputs.update(
        labels_json=workspace.relative(json_path),
        labels_csv=workspace.relative(csv_path),
        report_csv=workspace.relative(report_csv),
        age_histogram=workspace.relative(histogram),
    )


def _write_issues(
    config: PipelineConfig,
    workspace: Workspace,
    labelled: "LabelledPartition | None",
    report: StageReport,
) -> None:
    """Write the original labels that are probably wrong, ranked for a person, with their faces."""
    from agetf_pipeline.moe.contact_sheet import faces_of_partition, write_label_issues
    from agetf_pipeline.moe.label_issues import find_label_issues

    if labelled is None or not labelled.summary["original_age_group"].count():
        return
    issues = find_label_issues(labelled.summary, labelled.group_NG)
    files = write_label_issues(
        workspace.stats,
        issues,
        faces_of_partition(workspace, FFHQ_PARTITION),
        "FFHQ-Aging",
        config.synthesize.enabled,
        config.relabel.num_review_faces,
    )
    report.outputs.update({name: workspace.relative(path) for name, path in files.items()})
    report.counts["label_issues"] = int(issues["is_issue"].sum() or 0)


def _silent_experts(counts: "LabelCounts", experts: list[str]) -> list[str]:
    """Name the experts that took no part in some labels, with the count."""
    return [
        f"{name} took no part in {counts.absent[name]} of {counts.labelled[name]} labels: the "
        "other experts made them (table 'labels', column 'experts', says why)"
        for name in experts
        if counts.absent[name]
    ]


def _log(config: PipelineConfig, workspace: Workspace, report: StageReport) -> None:
    """Log figures, plots and tables of the mixture to MLflow; the labels do not wait for it."""
    from agetf_pipeline.registry.label_run import LabelRun, log_or_keep

    wanted = (".png", ".csv", ".json")
    paths = [workspace.resolve(path) for path in report.outputs.values()]
    exports = workspace.processed  # a row an image: too large for a run's artifacts
    files = [p for p in paths if p.suffix in wanted and not p.is_relative_to(exports)]
    calibration = workspace.resolve(report.outputs["calibration"])
    why_not = log_or_keep(
        workspace,
        config.register_model.tracking_uri,
        LabelRun(
            hash_file(calibration),
            config.synthesize.enabled,
            {"relabel": config.relabel.settings()},
            {**report.figures, **{f"num_{k}": float(v) for k, v in report.counts.items()}},
            sorted(workspace.relative(path) for path in files),
        ),
    )
    if why_not is not None:
        report.messages.append(why_not)


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


def _calibration_messages(calibration: "Calibration") -> list[str]:
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
