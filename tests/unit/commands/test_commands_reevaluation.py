"""Whether an evaluation has anything to do: the run, beside the champion, once for each state."""

import pytest
from small_registry import agetf, make_registry

from agetf_pipeline.commands.reevaluation import plan_reevaluation
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.files import write_bytes
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry import reference
from agetf_pipeline.stages import evaluate
from agetf_pipeline.stages.base import StageReport


def config_of(run_name: str) -> PipelineConfig:
    return PipelineConfig.model_validate({"train": {"run_name": run_name}})


def train(workspace: Workspace, run_name: str) -> None:
    write_bytes(evaluate.model_path(config_of(run_name), workspace), run_name.encode())


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    """Two versions, the first the champion; of the evaluation only what it asks for is real."""
    workspace = make_registry(tmp_path / "w", 2)
    assert agetf(workspace, "promote", "1", "--reason", "the only one") == 0

    def measured(*_) -> StageReport:
        path = workspace.root / "report.md"
        path.write_text("measured")
        return StageReport("evaluate", outputs={"report": "report.md"})

    monkeypatch.setattr(evaluate, "_evaluate", measured)
    monkeypatch.setattr(reference, "_weights", lambda m, n, sha, *_: (sha, workspace.root))
    return workspace


def test_the_configured_run_is_evaluated_until_nothing_changes(workspace):
    config = config_of("mine")
    train(workspace, "mine")
    assert plan_reevaluation(config, workspace).run_name == "mine"
    evaluate.run(config, workspace)
    plan = plan_reevaluation(config, workspace)
    assert plan.run_name is None
    assert "Nothing changed for run 'mine'" in plan.reason


@pytest.mark.parametrize("what", ["weights", "champion", "settings", "report"])
def test_it_is_evaluated_again_when_something_changed(workspace, what):
    config = config_of("mine")
    train(workspace, "mine")
    evaluate.run(config, workspace)
    if what == "weights":
        write_bytes(evaluate.model_path(config, workspace), b"trained on")
    elif what == "champion":
        assert agetf(workspace, "promote", "2", "--reason", "better") == 0
    elif what == "settings":
        config = config.model_copy(
            update={"evaluate": config.evaluate.model_copy(update={"num_faces": 5})}
        )
    else:
        (workspace.root / "report.md").unlink()
    assert plan_reevaluation(config, workspace).run_name == "mine"


def test_where_the_configured_run_is_not_trained_yet_the_champions_is_evaluated(workspace):
    plan = plan_reevaluation(config_of("next"), workspace)
    assert plan.run_name is None
    assert "'run-1' has no weights in this workspace" in plan.reason
    train(workspace, "run-1")
    assert plan_reevaluation(config_of("next"), workspace).run_name == "run-1"


def test_without_any_model_there_is_nothing_to_do(tmp_path):
    plan = plan_reevaluation(config_of("next"), Workspace(tmp_path))
    assert plan.run_name is None
    assert "not trained yet" in plan.reason
