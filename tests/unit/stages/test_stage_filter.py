"""The variance filter: reasons, quota, corpus ages, emptied groups."""

import polars as pl
import pytest

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.config.filter import FilterConfig
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.data.schemas import IMAGES, KEEP_LIST, LABELS
from agetf_pipeline.data.tables import read_table, table_path, to_frame, write_table
from agetf_pipeline.stages import filter as variance_filter
from agetf_pipeline.stages.filter import judge

NO_QUOTA = FilterConfig(min_kept_per_group=0)


def _tables(**of_image):
    """Images by name, each with what differs from a sure, frontal face of 25."""
    images, labels = [], []
    for name, odd in of_image.items():
        image = dict.fromkeys(IMAGES.schema.names) | {
            "image_id": name, "partition": "ffhq_aging", "path": name, "face_path": name,
            "raw_name": name, "format": "PNG", "mode": "RGB", "stored_width_px": 64,
            "stored_height_px": 64, "width_px": 64, "height_px": 64, "num_bytes": 1,
            "is_grey": False, "flags": [],
        }  # fmt: skip
        label = dict.fromkeys(LABELS.schema.names) | {
            "image_id": name, "label_version": "v", "age_years": 25.0, "variance_years2": 16.0,
            "interval_low_years": 18.0, "interval_high_years": 32.0, "num_experts": 4,
            "experts": "{}", "decision": "keep", "calibrated": True,
        }  # fmt: skip
        for key, value in odd.items():
            (image if key in image and key not in label else label)[key] = value
        images.append(image)
        labels.append(label)
    return to_frame(images, IMAGES), to_frame(labels, LABELS)


def _judge(config=NO_QUOTA, **of_image):
    judged = judge(*_tables(**of_image), config, 1.0)
    return {row["image_id"]: row for row in judged.iter_rows(named=True)}


def test_every_reason():
    rows = _judge(
        good={},
        mute={"age_years": None, "variance_years2": None},
        unsure={"variance_years2": 100.0},
        wide={"interval_low_years": 1.0, "interval_high_years": 60.0},
        turned={"head_yaw": -55.0},
        bowed={"head_pitch": 31.0},
        dark={"glasses": "Dark"},
        hidden={"left_eye_occluded": 95.0, "right_eye_occluded": 0.0},
        covered={"left_eye_occluded": 60.0, "right_eye_occluded": 55.0},
        both={"variance_years2": 100.0, "glasses": "Dark"},
        quarrel={"variance_years2": 50.0, "between_variance_years2": 40.0},
        given_up={"decision": "drop"},
        doubtful={"decision": "review"},
        relabelled={"decision": "relabel"},
        odd={"decision": "some_later_word"},
        config=FilterConfig(min_kept_per_group=0, max_disagreement_years=6.0),
    )
    assert {name: row["reasons"] for name, row in rows.items()} == {
        "good": [],
        "mute": ["no_label"],
        "unsure": ["high_variance"],
        "wide": ["wide_interval"],
        "turned": ["extreme_pose"],
        "bowed": ["extreme_pose"],
        "dark": ["dark_glasses"],
        "hidden": ["occluded_eyes"],
        "covered": ["occluded_eyes"],
        "both": ["high_variance", "dark_glasses"],
        "quarrel": ["high_disagreement"],
        "given_up": ["dropped_by_mixture"],
        "doubtful": [],
        "relabelled": [],
        "odd": [],
    }
    kept = {name for name, row in rows.items() if row["keep"]}
    assert kept == {"good", "doubtful", "relabelled", "odd"}
    assert rows["good"]["curriculum_weight"] == pytest.approx(1 / (1 + (4 / 8) ** 2))
    assert rows["good"]["age_group"] == "20-29"
    assert rows["unsure"]["curriculum_weight"] is None


def test_glasses_that_are_not_dark_and_one_eye_half_hidden_may_stay():
    rows = _judge(
        none={"glasses": "None"},
        normal={"glasses": "Normal"},
        half={"left_eye_occluded": 80.0, "right_eye_occluded": 10.0},
    )
    assert all(row["keep"] for row in rows.values())
    relaxed = FilterConfig(min_kept_per_group=0, drop_dark_glasses=False)
    assert _judge(relaxed, dark={"glasses": "Dark"})["dark"]["keep"]


def test_thresholds_that_are_off_unless_asked_for():
    faces = {
        "tilted": {"head_roll": -50.0},
        "unsure_crowd": {"age_group_confidence": 0.3},
        "unknown_crowd": {},
        "doubtful": {"decision": "review"},
        "quarrel": {"between_variance_years2": 15.0},
    }
    assert all(row["keep"] for row in _judge(**faces).values())
    strict = FilterConfig(
        min_kept_per_group=0, max_head_roll=40.0, min_crowd_confidence=0.6, drop_review=True,
        max_disagreement_years=3.0,
    )  # fmt: skip
    rows = _judge(strict, **faces)
    assert {name: row["reasons"] for name, row in rows.items()} == {
        "tilted": ["extreme_pose"],
        "unsure_crowd": ["low_crowd_confidence"],
        "unknown_crowd": [],
        "doubtful": ["dropped_by_mixture"],
        "quarrel": ["high_disagreement"],
    }
    off = FilterConfig(min_kept_per_group=0, max_disagreement_years=None)
    assert _judge(off, quarrel={"between_variance_years2": 9e4, "variance_years2": 9.0})["quarrel"][
        "keep"
    ]


def test_an_age_of_the_corpus_is_the_label():
    rows = _judge(
        caf={"true_age_years": 61.0, "variance_years2": 400.0, "interval_high_years": 90.0},
        mute={"true_age_years": 7.0, "age_years": None, "variance_years2": None},
        given_up={"true_age_years": 3.0, "decision": "drop", "between_variance_years2": 900.0},
    )
    assert rows["given_up"]["keep"]
    assert rows["caf"]["keep"]
    assert rows["caf"]["label_age_years"] == 61.0
    assert rows["caf"]["label_variance_years2"] == 1.0
    assert rows["caf"]["age_group"] == "50-69"
    assert rows["mute"]["label_age_years"] == 7.0


def test_the_surest_of_a_rare_group_are_kept():
    unsure = {f"u{n}": {"age_years": 80.0, "variance_years2": 100.0 + n} for n in range(4)}
    dark = {
        "dark": {"age_years": 80.0, "variance_years2": 90.0, "glasses": "Dark"},
        "drop": {"age_years": 80.0, "variance_years2": 91.0, "decision": "drop"},
    }
    rows = _judge(FilterConfig(min_kept_per_group=4), young={}, **unsure, **dark)
    assert [name for name, row in rows.items() if row["keep"]] == ["u0", "u1", "young"]
    assert rows["u0"]["reasons"] == []
    assert rows["u0"]["kept_by_quota"]
    assert not rows["young"]["kept_by_quota"]
    # One of the four surest wears dark glasses: unsureness is forgiven, those are not, and
    # neither is a label that the mixture gives up.
    assert rows["dark"]["reasons"] == ["high_variance", "dark_glasses"]
    assert rows["drop"]["reasons"] == ["dropped_by_mixture", "high_variance"]


def _write(workspace, **of_image):
    images, labels = _tables(**of_image)
    write_table(workspace, IMAGES, "ffhq_aging", images)
    write_table(workspace, LABELS, "ffhq_aging", labels)


def test_the_stage_counts_reasons_and_names_emptied_groups(tmp_path):
    workspace = Workspace(tmp_path)
    _write(
        workspace,
        good={},
        dark={"age_years": 1.0, "glasses": "Dark"},
        unsure={"age_years": 80.0, "variance_years2": 400.0},
        mute={"age_years": None, "variance_years2": None},
    )
    config = PipelineConfig(filter=NO_QUOTA)
    report = variance_filter.run(config, workspace, "ffhq_aging")
    assert report.counts == {
        "images": 4, "kept": 1, "kept_by_quota": 0, "no_label": 1, "dropped_by_mixture": 0,
        "high_variance": 1, "high_disagreement": 0, "wide_interval": 0, "low_crowd_confidence": 0,
        "extreme_pose": 0, "dark_glasses": 1, "occluded_eyes": 0,
    }  # fmt: skip
    text = " ".join(report.messages)
    assert "age group 0-2 is emptied: none of its 1 images is kept (dark_glasses 1)" in text
    assert "age group 70-120 is emptied" in text
    table = read_table(workspace, KEEP_LIST, ["ffhq_aging"])
    assert table.columns == KEEP_LIST.schema.names
    path = table_path(workspace, KEEP_LIST, "ffhq_aging")
    first = path.read_bytes()
    assert variance_filter.run(config, workspace, "ffhq_aging").status == "skipped"
    path.unlink()
    assert variance_filter.run(config, workspace, "ffhq_aging").status == "ran"
    assert path.read_bytes() == first


def test_every_age_group_is_reported(tmp_path):
    workspace = Workspace(tmp_path)
    sure = {f"s{n}": {"variance_years2": 16.0} for n in range(3)}
    unsure = {f"u{n}": {"age_years": 80.0, "variance_years2": 4e2 * 4**n} for n in range(4)}
    _write(
        workspace, **sure, **unsure, mute={"age_years": None, "variance_years2": None},
        dark={"age_years": 80.0, "variance_years2": 9e4, "glasses": "Dark"},
    )  # fmt: skip
    config = PipelineConfig(filter=FilterConfig(min_kept_per_group=2))
    report = variance_filter.run(config, workspace, "ffhq_aging")
    rows = pl.read_csv(workspace.resolve(report.outputs["filter_report"]))
    assert rows["age_group"].to_list() == [*AGE_GROUPS, "no age", "all"]
    of = {row["age_group"]: row for row in rows.iter_rows(named=True)}
    assert (of["20-29"]["kept"], of["20-29"]["kept_share"]) == (3, 1.0)
    assert of["20-29"]["effective_images"] == 3.0
    old = of["70-120"]
    assert (old["images"], old["kept"], old["kept_by_quota"], old["quota"]) == (5, 2, 2, 2)
    assert (old["high_variance"], old["dark_glasses"]) == (3, 1)
    assert 1.4 < old["effective_images"] < 1.6  # one is surer than the other
    assert of["0-2"]["images"] == 0
    assert of["0-2"]["kept_share"] is None
    assert of["0-2"]["effective_images"] is None
    assert (of["no age"]["images"], of["no age"]["no_label"]) == (1, 1)
    assert (of["all"]["images"], of["all"]["kept"]) == (9, 5)
    picture = workspace.resolve(report.outputs["filter_plot"])
    first = picture.read_bytes()
    assert first.startswith(b"\x89PNG")
    picture.unlink()
    assert variance_filter.run(config, workspace, "ffhq_aging").status == "ran"
    assert picture.read_bytes() == first


def test_a_quota_is_said(tmp_path):
    workspace = Workspace(tmp_path)
    _write(workspace, unsure={"variance_years2": 400.0})
    report = variance_filter.run(PipelineConfig(), workspace, "ffhq_aging")
    assert report.counts["kept_by_quota"] == 1
    assert any("surest of their age group" in message for message in report.messages)


def test_nothing_kept_and_nothing_there(tmp_path):
    workspace = Workspace(tmp_path)
    with pytest.raises(StageError, match="relabel"):
        variance_filter.run(PipelineConfig(), workspace, "ffhq_aging")
    _write(workspace)
    report = variance_filter.run(PipelineConfig(), workspace, "ffhq_aging")
    assert report.counts["images"] == 0
    _write(workspace, dark={"glasses": "Dark"})
    report = variance_filter.run(PipelineConfig(), workspace, "ffhq_aging")
    assert any("no image is kept" in message for message in report.messages)
    assert read_table(workspace, KEEP_LIST).select(pl.col("keep").sum()).item() == 0


def test_small_slices_give_the_same_rows_and_report(tmp_path, monkeypatch):
    workspaces = [Workspace(tmp_path / name) for name in ("whole", "sliced")]
    reports = []
    for workspace, size in zip(workspaces, (10_000, 3), strict=True):
        faces = {
            f"i{n:03}": {"age_years": float(n * 7 % 90), "variance_years2": float(n * 13 % 150)}
            for n in range(100)
        }
        images, labels = _tables(**faces)
        write_table(workspace, IMAGES, "ffhq_aging", images)
        # Some images have no row among the labels.
        write_table(workspace, LABELS, "ffhq_aging", labels[::2])
        monkeypatch.setattr(variance_filter, "_SLICE", size)
        config = PipelineConfig(filter=FilterConfig(min_kept_per_group=2))
        reports.append(variance_filter.run(config, workspace, "ffhq_aging"))
    tables = [read_table(workspace, KEEP_LIST, ["ffhq_aging"]) for workspace in workspaces]
    assert tables[0].equals(tables[1])
    assert reports[0].counts == reports[1].counts
    assert reports[0].counts["kept_by_quota"] > 0
    csv = [w.stats / "filter" / "ffhq_aging.csv" for w in workspaces]
    assert csv[0].read_bytes() == csv[1].read_bytes()
    expected = judge(images, labels[::2], config.filter, 1.0).drop("kept_by_quota")
    assert tables[0].equals(expected)


def test_an_age_that_is_no_age_is_refused():
    with pytest.raises(DataError, match="finite and not negative; found -3"):
        _judge(odd={"true_age_years": -3.0})
