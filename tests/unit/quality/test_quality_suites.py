"""Expectation suites: good rows pass, each kind of bad row is found, limits and severities hold."""

import polars as pl
import pytest

from agetf_pipeline.config.caption import CaptionChecks
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import KEEP_LIST, LABELS, TABLES, TRAINING_MANIFEST
from agetf_pipeline.data.tables import to_frame, write_table
from agetf_pipeline.quality import suites
from agetf_pipeline.quality.caption_rules import configured_caption_rules
from agetf_pipeline.quality.rule import count_broken
from agetf_pipeline.quality.rules import RULES, enough_experts
from agetf_pipeline.quality.suites import check_table, judge


def manifest_row(image_id: str, **changes) -> dict:
    row = {
        "image_id": image_id, "partition": "caf/a", "split": "train", "identity": f"caf:{image_id}",
        "face_path": "x.png", "enhanced_path": None, "age_years": 30.0, "variance_years2": 4.0,
        "age_group": "30-39", "curriculum_weight": 0.5, "label_source": "moe", "has_caption": True,
    }  # fmt: skip
    return row | changes


def failed(result) -> set[str]:
    return {verdict.name for verdict in result.verdicts if not verdict.passed}


def test_good_rows_pass():
    frame = to_frame([manifest_row("a"), manifest_row("b")], TRAINING_MANIFEST)
    result = judge("training_manifest", frame)
    assert result.passed
    assert not result.blocks
    assert result.num_rows == 2


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"age_years": 130.0}, "age_in_range"),
        ({"age_years": float("nan")}, "age_in_range"),
        ({"variance_years2": -1.0}, "variance_not_negative"),
        ({"curriculum_weight": 0.0}, "weight_in_range"),
        ({"split": "holdout"}, "split_known"),
        ({"identity": "caf:a", "split": "test"}, "identities_in_one_split"),
    ],
)
def test_a_bad_row_blocks_and_is_named(changes, rule):
    rows = [manifest_row("a"), manifest_row("b", **changes)]
    result = judge("training_manifest", to_frame(rows, TRAINING_MANIFEST))
    assert failed(result) == {rule}
    assert result.blocks
    broken = next(verdict for verdict in result.verdicts if verdict.name == rule)
    assert "b" in broken.examples
    # The row is shown with its key and what the rule reads, and nothing else.
    assert all(set(row) <= {"image_id", *TRAINING_MANIFEST.schema.names} for row in broken.rows)
    assert len(broken.rows[0]) in (2, 3)


def test_an_empty_table_blocks():
    result = judge("training_manifest", to_frame([], TRAINING_MANIFEST))
    assert failed(result) == {"has_rows"}
    assert result.blocks


def test_a_warning_does_not_block():
    rows = [manifest_row(f"{i}", has_caption=i > 0) for i in range(10)]
    result = judge("training_manifest", to_frame(rows, TRAINING_MANIFEST))
    assert failed(result) == {"captioned"}
    assert not result.blocks


def test_the_limit_is_a_share_of_the_rows():
    def keep(i: int, kept: bool) -> dict:
        return {
            "image_id": f"{i:02}", "keep": kept, "reasons": [] if kept else ["high_variance"],
            "label_age_years": 20.0, "label_variance_years2": 1.0, "age_group": "20-29",
            "curriculum_weight": 1.0 if kept else None,
        }  # fmt: skip

    half = to_frame([keep(i, i % 2 == 0) for i in range(10)], KEEP_LIST)
    most_dropped = to_frame([keep(i, i < 4) for i in range(10)], KEEP_LIST)
    assert failed(judge("keep_list", half)) == set()
    assert failed(judge("keep_list", most_dropped)) == {"kept"}


def test_every_rule_reads_its_own_table():
    for table, rules in RULES.items():
        frame = to_frame([], TABLES[table])
        names = [rule.name for rule in rules]
        assert len(set(names)) == len(names)
        for rule in rules:
            counted = count_broken(rule, frame)
            assert (counted.num_rows, counted.num_broken, counted.rows) == (0, 0, [])


def label_row(**changes):
    row = {
        "image_id": "a", "label_version": "1", "age_years": 20.0, "variance_years2": 9.0,
        "within_variance_years2": 8.0, "between_variance_years2": 1.0, "interval_low_years": 10.0,
        "interval_high_years": 30.0, "num_experts": 4, "experts": "{}", "original_age_group": None,
        "age_group": "20-29", "decision": "none", "reason": None, "calibrated": True,
    }  # fmt: skip
    return row | changes


def test_labels_variance_must_add_up():
    rows = [label_row(within_variance_years2=4.0)]
    assert failed(judge("labels", to_frame(rows, LABELS))) == {"variance_adds_up"}


def test_a_config_may_require_experts(tmp_path):
    workspace = Workspace(tmp_path)
    rows = [label_row(image_id=name, num_experts=3) for name in "abc"]
    write_table(workspace, LABELS, "ffhq_aging", to_frame(rows, LABELS))
    assert check_table(workspace, "labels", also=[enough_experts(3)]).passed
    result = check_table(workspace, "labels", also=[enough_experts(4)])
    assert failed(result) == {"enough_experts"}
    assert result.blocks


def test_the_result_is_kept_beside_the_tables(tmp_path):
    workspace = Workspace(tmp_path)
    frame = to_frame([manifest_row("a")], TRAINING_MANIFEST)
    write_table(workspace, TRAINING_MANIFEST, "all", frame)
    assert check_table(workspace, "training_manifest").passed
    kept = pl.read_json(workspace.stats / "quality" / "tables" / "training_manifest.json")
    assert kept["num_rows"].to_list() == [1]
    assert kept["passed"].to_list() == [True]


def test_a_table_is_judged_alike_whatever_the_slices(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    rows = [
        manifest_row(
            f"{n:03}", identity=f"caf:{n % 7}", split="train" if n % 20 else "val",
            age_years=130.0 if n % 9 == 0 else 30.0, has_caption=n % 2 == 0,
        )
        for n in range(60)
    ]  # fmt: skip
    frame = to_frame(rows, TRAINING_MANIFEST)
    write_table(workspace, TRAINING_MANIFEST, "a", frame[:25])
    write_table(workspace, TRAINING_MANIFEST, "b", frame[25:])
    whole = judge("training_manifest", frame)
    assert {"identities_in_one_split", "age_in_range", "captioned"} <= failed(whole)
    monkeypatch.setattr(suites, "_SLICE", 4)
    assert check_table(workspace, "training_manifest") == whole


def test_rules_that_compare_rows_say_so():
    captions = configured_caption_rules(CaptionChecks())
    rules = [rule for its in RULES.values() for rule in its] + captions
    comparing = {rule.name for rule in rules if ".over(" in str(rule.broken)}
    assert comparing == {rule.name for rule in rules if rule.whole}
    assert comparing == {"identities_in_one_split", "varied"}
