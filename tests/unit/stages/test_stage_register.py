import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.age_transformer.renderer import KIND, Renderer
from agetf_pipeline.age_transformer.sizes import ModelSettings
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError, WeightsError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry import resolve_model
from agetf_pipeline.registry.tracking import connected, tracking_uri_of
from agetf_pipeline.registry.versions import CHALLENGER, CHAMPION, find_alias
from agetf_pipeline.stages import register
from agetf_pipeline.stages.base import StageReport, report_path

MODEL = "age-transformer"
SETTINGS = ModelSettings(32, 2, (8, 16), (1, 1), 1, 2, 16)


def make_run(workspace: Workspace, run_name: str, seed: int, mae_years: float) -> None:
    import torch

    torch.manual_seed(seed)
    path = workspace.models / "age_transformer" / run_name / "weights.safetensors"
    card = {"kind": KIND, "model": SETTINGS.to_card(), "trained_on": "synthetic"}
    save_weights(path, AgeTransformer(SETTINGS), card)
    measured = {
        "renderings/age_mae_years": mae_years,
        "renderings/age_spearman": 0.9,
        "renderings/id_similarity": None,
    }
    folder = workspace.experiments / run_name
    write_json(
        folder / "metrics.json",
        {
            "run_name": run_name,
            "synthetic": True,
            "must_hold": [{"name": "rendered_age_rises", "verdict": "holds"}],
            "metrics": {name: {"value": value} for name, value in measured.items()},
            "versions": {"evaluation age estimator": "a" * 64},
        },
    )
    (folder / "report.md").write_text("# report\n")


def config_of(run_name: str) -> PipelineConfig:
    return PipelineConfig.model_validate({"train": {"run_name": run_name}})


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("registry"))
    for run_name, seed, mae_years in (("first", 0, 8.0), ("worse", 1, 9.0), ("better", 2, 7.0)):
        make_run(workspace, run_name, seed, mae_years)
    return workspace


def aliases(workspace: Workspace) -> tuple[str | None, str | None]:
    with connected(tracking_uri_of(workspace)) as client:
        found = [find_alias(client, MODEL, alias) for alias in (CHALLENGER, CHAMPION)]
    challenger, champion = (None if item is None else str(item.version) for item in found)
    return challenger, champion


def num_versions(workspace: Workspace) -> int:
    with connected(tracking_uri_of(workspace)) as client:
        return len(client.search_model_versions(f"name = '{MODEL}'"))


def test_needs_weights_and_metrics(tmp_path):
    with pytest.raises(StageError, match="Run the stage train first"):
        register.run(config_of("first"), Workspace(tmp_path))


# The tests below tell one story over one registry, in this order: mlflow takes seconds to set up.


def test_first_version_becomes_champion(workspace):
    report = register.run(config_of("first"), workspace)
    assert report.counts == {"num_versions_created": 1, "version": 1}
    assert aliases(workspace) == ("1", "1")
    assert register.run(config_of("first"), workspace).status == "skipped"


def test_a_run_whose_report_was_lost_makes_no_second_version(workspace):
    # As after a kill between registration and the stage's report.
    report_path(workspace, "register").unlink()
    report = register.run(config_of("first"), workspace)
    assert report.counts == {"num_versions_created": 0, "version": 1}
    assert num_versions(workspace) == 1
    with connected(tracking_uri_of(workspace)) as client:
        experiment = client.get_experiment_by_name("age-transformer")
        assert len(client.search_runs([experiment.experiment_id])) == 1


def test_loads_as_pyfunc_and_renders(workspace):
    import mlflow

    with connected(tracking_uri_of(workspace)):
        model = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    frame = pd.DataFrame({"image": [png(0), png(1)]})
    rows = model.predict(frame, params={"ages": [5.0, 60.0, 33.0]})
    assert rows["image_index"].tolist() == [0, 0, 0, 1, 1, 1]
    assert rows["age_years"].tolist() == [5.0, 60.0, 33.0] * 2
    renderer = Renderer.load(resolve_model(f"models:/{MODEL}@champion", workspace))
    with Image.open(io.BytesIO(frame["image"][1])) as image:
        face = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS))
    expected = renderer.render(face[None], [5.0, 60.0, 33.0])[0]
    found = [np.asarray(Image.open(io.BytesIO(data))) for data in rows["image"][3:]]
    np.testing.assert_array_equal(np.stack(found), expected)
    assert len(model.predict(frame[:1])) == len(SETTINGS.anchors_years)


def test_resolves_uris_and_paths(workspace):
    path = workspace.models / "age_transformer" / "first" / "weights.safetensors"
    assert hash_file(resolve_model(f"models:/{MODEL}/1", workspace)) == hash_file(path)
    assert resolve_model(path) == path
    assert resolve_model(path.parent) == path
    for wrong in (f"models:/{MODEL}@nobody", f"models:/{MODEL}/99", "models:/unknown/1"):
        with pytest.raises(WeightsError, match="in the registry"):
            resolve_model(wrong, workspace)
    with pytest.raises(WeightsError, match="found nothing"):
        resolve_model(path.parent / "absent.safetensors")


def test_a_worse_model_is_not_promoted(workspace):
    report = register.run(config_of("worse"), workspace)
    assert aliases(workspace) == ("2", "1")
    assert any("is worse than" in message for message in report.messages)
    with connected(tracking_uri_of(workspace)) as client:
        version = client.get_model_version(MODEL, "2")
    assert version.tags["agetf.decision"] == "not promoted"
    assert version.tags["agetf.compared_with_version"] == "1"
    assert "age MAE" in version.description


def test_a_better_model_is_promoted(workspace):
    register.run(config_of("better"), workspace)
    assert aliases(workspace) == ("3", "3")
    record = read_json(workspace.experiments / "better" / "registration.json")
    assert record["champion"]
    assert record["model"] == f"models:/{MODEL}/3"


def test_a_lost_database_is_filled_again(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    make_run(workspace, "first", 0, 8.0)
    database = tmp_path / "mlflow.db"

    def registers(*_):
        database.touch()
        return StageReport("register")

    monkeypatch.setattr(register, "_register", registers)
    assert register.run(config_of("first"), workspace).status == "ran"
    assert register.run(config_of("first"), workspace).status == "skipped"
    database.unlink()
    assert register.run(config_of("first"), workspace).status == "ran"
