"""The stage relabel, on simulated experts: biased, noisy, overconfident, sometimes silent."""

import csv
import json

import numpy as np
import polars as pl
import pytest
from label_corpus import NAMES, with_truth, write_corpus

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import group_midpoint
from agetf_pipeline.data.schemas import LABEL_DECISIONS, LABELS, PREDICTIONS
from agetf_pipeline.data.tables import list_partitions, read_table, table_path, write_table
from agetf_pipeline.moe import labelling
from agetf_pipeline.registry import tracking
from agetf_pipeline.stages import relabel


@pytest.fixture(scope="module")
def relabelled(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("relabel"))
    truth = write_corpus(workspace)
    config = PipelineConfig()
    return workspace, config, truth, relabel.run(config, workspace)


def test_mixture_beats_group_midpoints_and_every_expert(relabelled):
    workspace, _, truth, report = relabelled
    labels = with_truth(read_table(workspace, LABELS, ["ffhq_aging"]), truth)
    labelled = labels.drop_nulls("age_years")
    error = (labelled["age_years"] - labelled["truth"]).abs().mean()
    midpoints = np.array([group_midpoint(group) for group in labels["original_age_group"]])
    assert error < np.abs(midpoints - labels["truth"].to_numpy()).mean()
    assert report.figures["gain_over_best_expert_years_low"] > 0
    best = min(report.figures[f"{name}_corrected_mae_years"] for name in NAMES)
    assert report.figures["mixture_mae_years"] < 0.9 * best
    assert error == pytest.approx(report.figures["mixture_mae_years"], rel=0.15)


def test_intervals_hold_the_truth_as_often_as_they_say(relabelled):
    workspace, _, truth, report = relabelled
    labels = with_truth(read_table(workspace, LABELS, ["ffhq_aging"]), truth)
    labels = labels.drop_nulls("age_years")
    inside = pl.col("truth").is_between("interval_low_years", "interval_high_years")
    assert labels.select(inside.mean()).item() == pytest.approx(0.9, abs=0.06)
    assert report.figures["interval_coverage"] == pytest.approx(0.9, abs=0.04)


def test_labels_are_complete_and_nulls_are_explained(relabelled):
    workspace, _, _, report = relabelled
    labels = read_table(workspace, LABELS)
    assert labels.height == report.counts["images"] == 1300
    assert labels["calibrated"].all()
    missing = labels.filter(pl.col("age_years").is_null())
    assert (missing["decision"] == "unlabelled").all()
    assert missing["reason"].null_count() == 0
    parts = json.loads(labels["experts"][0])
    assert sorted(parts) == list(NAMES)
    weights = [part["weight"] for part in parts.values() if part["weight"] is not None]
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    caf = labels.filter(~pl.col("image_id").is_in(_ids(workspace, "ffhq_aging")))
    assert set(caf["decision"]) <= {"keep", "unlabelled"}


def test_exports_are_json_and_csv_without_nan(relabelled):
    workspace, _, _, report = relabelled
    text = (workspace.processed / "ffhq_aging_moe_labels.json").read_text()
    records = json.loads(text)
    assert "NaN" not in text
    assert len(records) == 300
    with (workspace.processed / "ffhq_aging_moe_labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 300
    for record, row in zip(records, rows, strict=True):
        assert str(record["image_number"]) == row["image_number"]
        assert row["decision"] == record["decision"]
        weight = record["experts"]["vgg16"]["weight"]
        assert row["vgg16_weight"] == ("" if weight is None else str(weight))
    moe = pl.read_csv(workspace.stats / "ffhq_aging_moe_report.csv")
    whole = moe.filter(pl.col("age_group") == "all").row(0, named=True)
    assert whole["num_images_before"] == 300
    decided = sum(whole[f"num_{name}"] for name in LABEL_DECISIONS)
    assert decided == 300
    assert [record["path"] for record in records] == sorted(record["path"] for record in records)
    assert moe.filter(pl.col("age_group") != "all")["num_keep"].sum() == whole["num_keep"]
    for name in ("age_histogram", "reliability_plot"):
        assert workspace.resolve(report.outputs[name]).stat().st_size > 1000


def test_same_inputs_give_the_same_bytes(relabelled, tmp_path):
    workspace, config, _, report = relabelled
    other = Workspace(tmp_path)
    write_corpus(other)
    again = relabel.run(config, other)
    for name, path in report.outputs.items():
        assert workspace.resolve(path).read_bytes() == other.resolve(path).read_bytes(), name
    assert again.figures == report.figures
    assert relabel.run(config, other).status == "skipped"


def test_slices_of_any_size_give_the_same_labels(relabelled, tmp_path, monkeypatch):
    workspace, config, _, _ = relabelled
    other = Workspace(tmp_path)
    write_corpus(other)
    monkeypatch.setattr(labelling, "_SLICE", 7)
    monkeypatch.setattr(labelling, "_EXPORT_SLICE", 50)
    again = relabel.run(config, other)
    assert read_table(other, LABELS).equals(read_table(workspace, LABELS))
    for name in ("labels_json", "labels_csv", "report_csv"):
        paths = [each.resolve(again.outputs[name]) for each in (workspace, other)]
        assert paths[0].read_bytes() == paths[1].read_bytes(), name


def test_reliability_is_how_often_the_mixture_is_within_five_years(relabelled):
    workspace, _, truth, report = relabelled
    labels = with_truth(read_table(workspace, LABELS), truth).drop_nulls("age_years")
    expected = report.figures["mixture_cs5"]
    assert labels["reliability"].mean() == pytest.approx(expected, abs=0.05)
    within = (labels["age_years"] - labels["truth"]).abs() <= 5
    sure = labels["reliability"] > labels["reliability"].median()
    assert within.filter(sure).mean() > within.filter(~sure).mean()


def _without(workspace, *experts):
    """Let experts fail on every image, as a network that always raises does."""
    silent = pl.col("expert").is_in(experts)
    for partition in list_partitions(workspace, PREDICTIONS):
        rows = read_table(workspace, PREDICTIONS, [partition]).with_columns(
            pl.when(~silent).then("age_years"),
            pl.when(~silent).then("sigma_years"),
            status=pl.when(silent).then(pl.lit("failed")).otherwise("status"),
            reason=pl.when(silent).then(pl.lit("RuntimeError: broken")).otherwise("reason"),
        )
        write_table(workspace, PREDICTIONS, partition, rows)


def test_an_expert_that_is_silent_on_every_image_costs_its_part_and_is_counted(tmp_path):
    workspace = Workspace(tmp_path)
    write_corpus(workspace, num_ffhq=40, num_subjects=40)
    _without(workspace, "resnet50")
    report = relabel.run(PipelineConfig(), workspace)
    labels = read_table(workspace, LABELS)
    assert labels["num_experts"].max() == 3
    num_labelled = labels["age_years"].count()
    assert num_labelled > 0.9 * labels.height
    said = f"resnet50 took no part in {num_labelled} of {num_labelled} labels"
    assert any(message.startswith(said) for message in report.messages)
    part = json.loads(labels["experts"][0])["resnet50"]
    assert (part["status"], part["reason"]) == ("failed", "RuntimeError: broken")


def test_two_of_three_experts_silent_leave_no_label_but_the_reasons(tmp_path):
    workspace = Workspace(tmp_path)
    write_corpus(workspace, num_ffhq=30, num_subjects=20)
    for partition in list_partitions(workspace, PREDICTIONS):
        rows = read_table(workspace, PREDICTIONS, [partition])
        write_table(workspace, PREDICTIONS, partition, rows.filter(pl.col("expert") != "vgg16"))
    _without(workspace, "janus", "mivolo")
    report = relabel.run(PipelineConfig(), workspace)
    labels = read_table(workspace, LABELS)
    assert labels["age_years"].null_count() == labels.height == report.counts["unlabelled"]
    assert labels["reliability"].null_count() == labels.height
    assert (labels["num_experts"] <= 1).all()
    assert labels["reason"].str.contains("janus: RuntimeError: broken").all()


def test_the_run_is_logged_to_mlflow_once(relabelled):
    workspace, _, _, report = relabelled
    with tracking.connected(tracking.tracking_uri_of(workspace)) as client:
        found = client.get_experiment_by_name("moe-labels")
        runs = client.search_runs([found.experiment_id])
        files = {item.path for item in client.list_artifacts(runs[0].info.run_id, "mixture")}
    assert len(runs) == 1
    metrics = runs[0].data.metrics
    assert metrics["interval_coverage"] == pytest.approx(report.figures["interval_coverage"])
    assert metrics["num_images"] == 1300
    assert {"mixture/calibration.json", "mixture/moe_reliability.png"} <= files
    assert not any("labels" in name for name in files)


def test_too_few_labelled_subjects_leave_the_mixture_uncalibrated(tmp_path):
    workspace = Workspace(tmp_path)
    write_corpus(workspace, num_ffhq=20, num_subjects=6)
    report = relabel.run(PipelineConfig(), workspace)
    labels = read_table(workspace, LABELS)
    assert not labels["calibrated"].any()
    assert any("not calibrated" in message for message in report.messages)
    assert report.figures["conformal_quantile"] is None
    assert not (workspace.stats / "moe_reliability.png").exists()


def test_a_calibration_made_elsewhere_is_applied(relabelled, tmp_path):
    workspace, config, _, report = relabelled
    other = Workspace(tmp_path)
    write_corpus(other, num_ffhq=20, num_subjects=0)
    assert list_partitions(other, PREDICTIONS) == ["ffhq_aging"]
    path = workspace.resolve(report.outputs["calibration"])
    given = config.model_copy(
        update={"relabel": config.relabel.model_copy(update={"calibration_path": str(path)})}
    )
    applied = relabel.run(given, other)
    assert read_table(other, LABELS)["calibrated"].all()
    assert (other.models / "moe" / "calibration.json").read_bytes() == path.read_bytes()
    assert applied.figures["tau"] == report.figures["tau"]


def test_predictions_of_two_versions_are_refused(tmp_path):
    workspace = Workspace(tmp_path)
    write_corpus(workspace, num_ffhq=10, num_subjects=10)
    old = read_table(workspace, PREDICTIONS, ["caf/shard-0"]).with_columns(
        model_version=pl.lit("older")
    )
    write_table(workspace, PREDICTIONS, "caf/shard-0", old)
    with pytest.raises(DataError, match=r"older in caf/shard-0.*predict"):
        relabel.run(PipelineConfig(), workspace)


def test_without_predictions_it_says_what_to_run(tmp_path):
    with pytest.raises(StageError, match="predict"):
        relabel.run(PipelineConfig(), Workspace(tmp_path))


def test_labels_of_a_partition_that_is_gone_are_removed(tmp_path):
    workspace = Workspace(tmp_path)
    write_corpus(workspace, num_ffhq=10, num_subjects=10)
    relabel.run(PipelineConfig(), workspace)
    table_path(workspace, PREDICTIONS, "caf/shard-1").unlink()
    report = relabel.run(PipelineConfig(), workspace)
    assert list_partitions(workspace, LABELS) == ["caf/shard-0", "ffhq_aging"]
    assert any("caf/shard-1 were removed" in message for message in report.messages)


def _ids(workspace, partition):
    return read_table(workspace, LABELS, [partition])["image_id"].to_list()
