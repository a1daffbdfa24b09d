"""Gates: statements of a run, promotion of a version, files of a release."""

import pytest

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import write_json
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.quality.gates import check_evaluation, check_promotion, check_release
from agetf_pipeline.stages.release import write_checksums

CONFIG = PipelineConfig()


def failed(result) -> set[str]:
    return {verdict.name for verdict in result.failures}


def write_metrics(workspace: Workspace, verdict: str = "holds", **figure) -> None:
    found = {"value": 0.9, "n": 10, "reason": None} | figure
    statement = {"name": "rises", "text": "It rises.", "detail": "0.9", "verdict": verdict}
    write_json(
        workspace.experiments / CONFIG.train.run_name / "metrics.json",
        {"metrics": {"renderings": {"age_spearman": found}}, "must_hold": [statement]},
    )


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


def test_an_evaluation_whose_statements_hold_passes(workspace):
    write_metrics(workspace)
    result = check_evaluation(CONFIG, workspace, "evaluation_report/must_hold")
    assert result.passed
    assert result.num_rows == 1


@pytest.mark.parametrize(
    ("verdict", "expected"), [("does not hold", {"rises"}), ("not judged", set())]
)
def test_a_statement_that_does_not_hold_warns(workspace, verdict, expected):
    write_metrics(workspace, verdict)
    result = check_evaluation(CONFIG, workspace, "evaluation_report/must_hold")
    assert failed(result) == expected
    assert not result.blocks


@pytest.mark.parametrize(
    ("figure", "rule"),
    [
        ({"value": None, "n": 0}, "missing_explained"),
        ({"n": 0}, "sample_size"),
    ],
)
def test_a_figure_out_of_nowhere_blocks(workspace, figure, rule):
    write_metrics(workspace, **figure)
    result = check_evaluation(CONFIG, workspace, "evaluation_report/must_hold")
    assert failed(result) == {rule}
    assert result.blocks
    assert result.failures[0].rows[0]["figure"] == "renderings/age_spearman"


def test_no_evaluation_is_an_error_that_says_what_to_run(workspace):
    with pytest.raises(DataError, match="evaluate"):
        check_evaluation(CONFIG, workspace, "evaluation_report/must_hold")


def test_a_challenger_that_stays_one_warns_with_its_gate(workspace):
    gate = {"figure": "age_mae_years", "closes": True, "verdict": "fails", "reason": "+3 years"}
    record = {"model": "models:/age-transformer/2", "champion": False, "reasons": ["worse"],
              "gates": [gate], "mixture": None}  # fmt: skip
    path = workspace.experiments / CONFIG.train.run_name / "registration.json"
    write_json(path, record)
    result = check_promotion(CONFIG, workspace, "registered_model/promotion")
    assert failed(result) == {"age-transformer/champion", "age-transformer/age_mae_years"}
    assert not result.blocks
    write_json(path, record | {"champion": True, "gates": [gate | {"closes": False}]})
    assert check_promotion(CONFIG, workspace, "registered_model/promotion").passed


@pytest.fixture
def release(workspace):
    import mlcroissant as mlc

    folder = workspace.root / "outputs" / "release" / CONFIG.release.version
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("image_id\n1\n")
    metadata = mlc.Metadata(name="ages", description="Ages.", license=["CC0-1.0"])
    write_json(folder / "croissant.json", metadata.to_json())
    write_checksums(folder)
    return folder


def check_of(workspace):
    return check_release(CONFIG, workspace, "release_files/complete")


def test_a_whole_release_passes(workspace, release):
    assert check_of(workspace).passed


def test_a_changed_a_missing_and_an_unlisted_file_are_named(workspace, release):
    (release / "a.csv").write_text("image_id\n2\n")
    (release / "b.csv").write_text("new")
    result = check_of(workspace)
    assert failed(result) == {"unchanged", "listed"}
    assert result.blocks
    assert {v.examples[0] for v in result.failures} == {"a.csv", "b.csv"}
    (release / "a.csv").unlink()
    assert failed(check_of(workspace)) == {"there", "listed"}


def test_croissant_that_does_not_validate_is_found(workspace, release):
    write_json(release / "croissant.json", {"@type": "sc:Dataset"})
    write_checksums(release)
    assert failed(check_of(workspace)) == {"croissant_valid"}


def test_a_release_that_was_cut_off_is_an_error(workspace, release):
    (release / "checksums.sha256").unlink()
    with pytest.raises(DataError, match="release"):
        check_of(workspace)
