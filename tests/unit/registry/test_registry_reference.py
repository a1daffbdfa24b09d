import sys

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry.reference import champion_to_compare

# Champions, and those of whom the weights are gone: see test_stage_register.py.


def test_without_a_registry_there_is_nothing_to_compare_with_and_mlflow_is_not_asked(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # importing it raises
    assert champion_to_compare(PipelineConfig(), Workspace(tmp_path), "a" * 64) is None
    assert list(tmp_path.iterdir()) == []
