"""Label drift: what is accepted, what is compared with it, and what asks a person to look."""

import polars as pl
import pytest

from agetf_pipeline.config.quality import QualityConfig
from agetf_pipeline.core.files import read_json
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import LABELS
from agetf_pipeline.data.tables import to_frame, write_table
from agetf_pipeline.quality.drift import check_label_drift

NAME = "moe_labels/label_drift"


def write_labels(workspace: Workspace, ages: list[float | None]) -> None:
    rows = [
        {
            "image_id": f"{number:064x}"[::-1], "label_version": "1", "age_years": age,
            "variance_years2": 1.0, "within_variance_years2": 1.0, "between_variance_years2": 0.0,
            "interval_low_years": 0.0, "interval_high_years": 99.0, "reliability": 0.5,
            "num_experts": 4, "experts": "{}", "original_age_group": None, "age_group": None,
            "decision": "none", "reason": None, "calibrated": True,
        }
        for number, age in enumerate(ages)
    ]  # fmt: skip
    write_table(workspace, LABELS, "ffhq_aging", to_frame(rows, LABELS))


def drift(workspace: Workspace, acceptable: bool = True):
    return check_label_drift(workspace, QualityConfig(), NAME, acceptable)


def failed(result) -> set[str]:
    return {verdict.name for verdict in result.failures}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = Workspace(tmp_path)
    write_labels(workspace, [20.0 + n for n in range(20)])
    return workspace


def test_the_first_labels_accept_themselves_and_say_so(workspace):
    result = drift(workspace)
    assert result.passed
    assert not result.verdicts
    assert any("no accepted labels before" in note for note in result.notes)
    assert (workspace.stats / "accepted" / "labels.json").is_file()


def test_labels_that_stay_pass(workspace):
    drift(workspace)
    write_labels(workspace, [20.5 + n for n in range(20)])
    result = drift(workspace)
    assert result.passed
    assert result.figures["emd_years"] == pytest.approx(0.5)
    assert result.figures["moved_share"] == 0
    assert result.figures["mean_change_years"] == pytest.approx(0.5)


def test_a_shift_of_all_labels_asks_a_person_and_blocks_nothing(workspace):
    drift(workspace)
    write_labels(workspace, [23.0 + n for n in range(20)])
    result = drift(workspace)
    assert failed(result) == {"distribution_kept"}
    assert not result.blocks


def test_labels_that_swap_keep_the_distribution_and_are_counted(workspace):
    drift(workspace)
    ages = [20.0 + n for n in range(20)]
    ages[0], ages[19] = ages[19], ages[0]
    write_labels(workspace, ages)
    result = drift(workspace)
    assert failed(result) == {"labels_kept"}
    assert result.figures["emd_years"] == pytest.approx(0, abs=1e-6)
    assert result.failures[0].num_broken == 2
    assert {row["change_years"] for row in result.failures[0].rows} == {"19.0", "-19.0"}


def test_checking_the_same_labels_again_says_the_same(workspace):
    drift(workspace)
    write_labels(workspace, [30.0 + n for n in range(20)])
    first = drift(workspace)
    assert drift(workspace) == first
    assert not first.passed


def test_drift_that_was_accepted_is_what_the_next_labels_are_compared_with(workspace):
    drift(workspace)
    write_labels(workspace, [30.0 + n for n in range(20)])
    assert not drift(workspace).passed
    write_labels(workspace, [30.1 + n for n in range(20)])
    assert drift(workspace).passed
    assert len(list((workspace.stats / "accepted").glob("*.parquet"))) == 1


def test_labels_that_block_are_not_accepted(workspace):
    drift(workspace)
    before = read_json(workspace.stats / "accepted" / "labels.json")
    write_labels(workspace, [60.0 + n for n in range(20)])
    result = drift(workspace, acceptable=False)
    assert any("not accepted" in note for note in result.notes)
    assert read_json(workspace.stats / "accepted" / "labels.json") == before


def test_only_images_with_both_labels_are_compared(workspace):
    write_labels(workspace, [None, 30.0, 40.0])
    drift(workspace)
    write_labels(workspace, [90.0, 30.0, None, 50.0])
    result = drift(workspace)
    (moved,) = [v for v in result.verdicts if v.name == "labels_kept"]
    assert (moved.num_rows, moved.num_broken) == (1, 0)


def test_labels_without_any_age_are_compared_with_nothing(workspace):
    drift(workspace)
    write_labels(workspace, [None, None])
    result = drift(workspace)
    assert result.figures == {"emd_years": None, "moved_share": None, "mean_change_years": None}
    assert result.passed
    kept = pl.read_parquet(next((workspace.stats / "accepted").glob("*.parquet")))
    assert kept["age_years"].null_count() == 2
