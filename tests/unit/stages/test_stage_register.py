import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
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
from agetf_pipeline.registry import (
    history,
    measured_labels,
    mixture_packaging,
    packaging,
    resolve_model,
    versions,
)
from agetf_pipeline.registry.label_gate import LABEL_MAE
from agetf_pipeline.registry.reference import Reference, champion_to_compare
from agetf_pipeline.registry.tracking import connected, tracking_uri_of
from agetf_pipeline.registry.versions import CHALLENGER, CHAMPION, find_alias
from agetf_pipeline.stages import register
from agetf_pipeline.stages.base import StageReport, report_path

AGE = "age_mae_years"
MODEL, MIXTURE = "age-transformer", "age-mixture"
SETTINGS = ModelSettings(32, 2, (8, 16), (1, 1), 1, 2, 16)
NO_WEIGHTS = "no AlexNet: supply its weights"


def weights_of(workspace: Workspace, run_name: str) -> Path:
    return workspace.models / "age_transformer" / run_name / "weights.safetensors"


def figure(value: float | None, half_width: float = 0.0, reason: str | None = None) -> dict:
    low, high = (None, None) if value is None else (value - half_width, value + half_width)
    return {"value": value, "low": low, "high": high, "n": 300, "synthetic": True, "reason": reason}


def make_run(
    workspace: Workspace, run_name: str, seed: int, mae_years: float, champion: str | None = None,
    version: str = "1",
) -> None:  # fmt: skip
    """Write weights and the evaluation of a run, compared with a champion's run."""
    import torch

    torch.manual_seed(seed)
    card = {"kind": KIND, "model": SETTINGS.to_card(), "trained_on": "synthetic"}
    save_weights(weights_of(workspace, run_name), AgeTransformer(SETTINGS), card)
    against = f"against_champion/{AGE}"
    figures = {
        f"renderings/{AGE}": figure(mae_years, 0.3),
        "renderings/id_similarity": figure(0.8, 0.02),
        against: figure(mae_years - 8.0, 0.3),
        f"{against}/age_group=20-29": figure(mae_years - 7.9, 0.8),
        f"{against}/gender=female": figure(None, reason="suppressed: n = 4 is below 30"),
        "against_champion/id_similarity": figure(0.0, 0.005),
        "against_champion/source_lpips": figure(None, reason=NO_WEIGHTS),
    }
    compared = champion and {
        "model": MODEL,
        "version": version,
        "weights_sha256": hash_file(weights_of(workspace, champion)),
    }
    folder = workspace.experiments / run_name
    write_json(
        folder / "metrics.json",
        {
            "run_name": run_name,
            "synthetic": True,
            "champion": compared,
            "must_hold": [{"name": "rendered_age_rises", "verdict": "holds"}],
            "metrics": figures | {LABEL_MAE: figure(5.0, 0.2)},
            "sampling": {"level": 0.95, "num_bootstrap": 500, "min_cell": 30},
            "label_versions": ["1" * 16],
            "versions": {"age_transformer": hash_file(weights_of(workspace, run_name))},
        },
    )
    # What the stage evaluate wrote, and what lay there before.
    for name in ("report.md", "grid.png", "of_somebody.png"):
        (folder / name).write_text(f"{name} of {run_name}\n")
    written = [workspace.relative(folder / name) for name in ("report.md", "grid.png")]
    report = StageReport("evaluate", outputs={name: name for name in written})
    write_json(report_path(workspace, "evaluate"), dataclasses.asdict(report))


def write_labels(workspace: Workspace, run_name: str, error_years: float | None) -> None:
    """Write the labels of 120 faces of 40 people, all wrong by as much; None: without a truth."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(20, 28, 120)
    rows = pl.DataFrame(
        {
            "kind": "label",
            "image_id": [f"{i:04d}" for i in range(120)],
            "identity": [f"person-{i % 40}" for i in range(120)],
            "target_age_years": truth,
            "age_years": truth + (error_years or 0.0),
        }
    )
    if error_years is None:
        rows = rows.clear()
    rows.write_parquet(workspace.experiments / run_name / "per_image.parquet")


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
    make_run(workspace, "first", 0, 8.0)
    for run_name, seed, mae_years in (("worse", 1, 9.0), ("better", 2, 7.0), ("late", 3, 6.0)):
        make_run(workspace, run_name, seed, mae_years, champion="first")
    make_run(workspace, "first", 0, 8.0)
    return workspace


def aliases(workspace: Workspace, model: str = MODEL) -> tuple[str | None, str | None]:
    with connected(tracking_uri_of(workspace)) as client:
        found = [find_alias(client, model, alias) for alias in (CHALLENGER, CHAMPION)]
    challenger, champion = (None if item is None else str(item.version) for item in found)
    return challenger, champion


def version_of(workspace: Workspace, number: str, model: str = MODEL):
    with connected(tracking_uri_of(workspace)) as client:
        return client.get_model_version(model, number)


def compared_with(workspace: Workspace, run_name: str) -> Reference | None:
    sha256 = hash_file(weights_of(workspace, run_name))
    return champion_to_compare(config_of(run_name), workspace, sha256)


def num_versions(workspace: Workspace) -> int:
    with connected(tracking_uri_of(workspace)) as client:
        return len(client.search_model_versions(f"name = '{MODEL}'"))


def test_needs_weights_and_metrics(tmp_path):
    with pytest.raises(StageError, match="Run the stage train first"):
        register.run(config_of("first"), Workspace(tmp_path))


def test_figures_of_other_weights_are_refused(tmp_path):
    workspace = Workspace(tmp_path)
    make_run(workspace, "first", 0, 8.0)
    measured = hash_file(weights_of(workspace, "first"))
    weights_of(workspace, "first").write_bytes(b"trained again")
    with pytest.raises(StageError, match=rf"of {measured}\. Run evaluate again"):
        register.run(config_of("first"), workspace)
    metrics = workspace.experiments / "first" / "metrics.json"
    write_json(metrics, read_json(metrics) | {"versions": {}})
    with pytest.raises(StageError, match="weights that it does not name"):
        register.run(config_of("first"), workspace)
    assert not (tmp_path / "mlflow.db").exists()


# The tests below tell one story over one registry, in this order: mlflow takes seconds to set up.


def test_first_version_becomes_champion_though_mlflow_failed_at_first(workspace, monkeypatch):
    from mlflow.exceptions import MlflowException

    def fails(*_):
        raise MlflowException("the disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(versions, "create_version", fails)
        with pytest.raises(StageError, match=r"the disk is full.*is gone on with"):
            register.run(config_of("first"), workspace)
    assert num_versions(workspace) == 0
    # The run and the model that it had logged are found again: nothing is logged twice.
    monkeypatch.setattr(packaging, "log_model", fails)
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
        runs = client.search_runs([experiment.experiment_id])
        assert len(runs) == 1
        logged = {item.path for item in client.list_artifacts(runs[0].info.run_id, "report")}
    assert logged == {"report/metrics.json", "report/report.md", "report/grid.png"}
    assert version_of(workspace, "1").tags["agetf.trained_on"] == "synthetic"


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
    reference = compared_with(workspace, "worse")
    assert reference is not None
    assert (reference.version, hash_file(reference.weights)) == ("1", reference.sha256)
    report = register.run(config_of("worse"), workspace)
    assert aliases(workspace) == ("2", "1")
    assert any("may be worse than" in message for message in report.messages)
    version = version_of(workspace, "2")
    assert version.tags["agetf.decision"] == "not promoted"
    assert version.tags["agetf.compared_with_version"] == "1"
    assert "age MAE" in version.description
    gates = {gate["figure"]: gate for gate in json.loads(version.tags["agetf.gates"])}
    age = gates["against_champion/age_mae_years"]
    assert (age["verdict"], age["value"], age["margin"]) == ("fails", 1.0, 0.5)
    assert (age["low"], age["high"]) == (0.7, 1.3)
    assert NO_WEIGHTS in gates["against_champion/source_lpips"]["reason"]


def test_a_better_model_is_promoted(workspace):
    register.run(config_of("better"), workspace)
    assert aliases(workspace) == ("3", "3")
    record = read_json(workspace.experiments / "better" / "registration.json")
    assert record["champion"]
    assert record["model"] == f"models:/{MODEL}/3"
    assert {gate["verdict"] for gate in record["gates"]} == {"holds", "not measured"}
    tags = version_of(workspace, "3").tags
    assert (tags["agetf.previous_champion"], tags["agetf.decided_by"]) == ("1", "gates")
    assert json.loads(tags["agetf.figures"])[f"renderings/{AGE}"]["high"] == 7.3
    # After a lost report the gates of the decision are read back from the version.
    report_path(workspace, "register").unlink()
    assert register.run(config_of("better"), workspace).counts["num_versions_created"] == 0
    again = read_json(workspace.experiments / "better" / "registration.json")
    assert again["gates"] == record["gates"]
    assert again["reasons"] == ["it is the champion already", "; ".join(record["reasons"])]
    assert register.run(config_of("better"), workspace).status == "skipped"
    # Evaluated again, it is compared with what it was compared with.
    reference = compared_with(workspace, "better")
    assert reference is not None
    assert reference.version == "1"
    assert compared_with(workspace, "first").version == "3"


def test_compared_with_a_former_champion_it_is_to_be_evaluated_again(workspace):
    report = register.run(config_of("late"), workspace)
    assert aliases(workspace) == ("4", "3")
    assert "compared with version 1, the champion is 3 now: run evaluate again" in str(
        report.messages
    )


def test_what_changed_in_the_registry_since_is_noticed(workspace):
    # "late" was registered after "better": the report of "better" no longer says who is challenger.
    assert register.run(config_of("better"), workspace).status == "ran"
    assert register.run(config_of("better"), workspace).status == "skipped"


def test_a_rollback_restores_and_the_gates_do_not_take_it_back(workspace):
    uri = tracking_uri_of(workspace)
    with history.registry_lock(workspace, uri), connected(uri) as client:
        history.roll_back(client, MODEL, "worse on real photographs")
    assert aliases(workspace) == ("3", "1")
    expected = hash_file(weights_of(workspace, "first"))
    assert hash_file(resolve_model(f"models:/{MODEL}@champion", workspace)) == expected
    report = register.run(config_of("better"), workspace)
    assert report.status == "ran"
    assert aliases(workspace) == ("3", "1")
    record = read_json(workspace.experiments / "better" / "registration.json")
    assert not record["champion"]
    assert "worse on real photographs" in str(report.messages)
    assert version_of(workspace, "3").tags["agetf.decision"] == "rolled back"


def test_weights_that_are_not_what_was_registered_are_refused(workspace):
    stored = resolve_model(f"models:/{MODEL}@champion", workspace)
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1] + b"x")
    with pytest.raises(WeightsError, match="compare_with_champion=false"):
        compared_with(workspace, "better")
    stored.unlink()
    with pytest.raises(WeightsError, match="to compare with; found"):
        compared_with(workspace, "better")
    stored.write_bytes(whole)


def test_the_mixture_is_registered_and_judged_the_same_way(workspace, monkeypatch):
    from agetf_pipeline.moe.calibration import uncalibrated

    drawn = uncalibrated("few images", 0.9).model_copy(update={"trained_on": "synthetic"})
    drawn.save(workspace.models / "moe" / "calibration.json")
    its_own = {"why": None}

    def registers(fingerprint: str | None, error_years: float | None) -> StageReport:
        write_labels(workspace, "better", error_years)
        monkeypatch.setattr(mixture_packaging, "mixture_fingerprint", lambda *_: fingerprint)
        return register.run(config_of("better"), workspace)

    monkeypatch.setattr(
        mixture_packaging, "log_mixture", lambda run_id, *_: f"runs:/{run_id}/labels"
    )
    monkeypatch.setattr(measured_labels, "why_not_its_own", lambda *_: its_own["why"])
    assert "no version of age-mixture" in str(registers(None, 5.0).messages)
    unknown = registers("0" * 64, None)
    assert aliases(workspace, MIXTURE) == ("1", None)
    assert "label MAE: not measured" in str(unknown.messages)
    its_own["why"] = "labels of another version were measured"
    stale = registers("0" * 64, 5.1)
    assert aliases(workspace, MIXTURE) == ("1", None)
    assert "not measured (labels of another version were measured)" in str(stale.messages)
    assert version_of(workspace, "1", MIXTURE).tags["agetf.figures"] == "{}"
    its_own["why"] = None
    assert registers("0" * 64, 5.0).counts["mixture_version"] == 1
    assert aliases(workspace, MIXTURE) == ("1", "1")
    for fingerprint, error_years, expected in (
        ("a" * 64, 6.0, ("2", "1")), ("b" * 64, -5.2, ("3", "1")), ("c" * 64, 4.0, ("4", "4")),
    ):  # fmt: skip
        registers(fingerprint, error_years)
        assert aliases(workspace, MIXTURE) == expected
    tags = version_of(workspace, "3", MIXTURE).tags
    overall, groups = json.loads(tags["agetf.gates"])
    assert overall["value"] == pytest.approx(0.2)
    assert (overall["n"], overall["margin"]) == (120, 0.25)
    assert groups["figure"] == "against_champion/label_mae_years/age_group=20-29"
    assert tags["agetf.weights_sha256"] == "b" * 64
    assert tags["agetf.trained_on"] == "synthetic"
    record = read_json(workspace.experiments / "better" / "registration.json")
    assert record["mixture"]["model"] == f"models:/{MIXTURE}/4"
    assert record["model"] == f"models:/{MODEL}/3"


def test_a_lost_database_is_filled_again(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    make_run(workspace, "first", 0, 8.0)
    state = {MODEL: {"champion": "1 aaaa"}}
    found = {"state": None}

    def registers(*_):
        record = workspace.experiments / "first" / "registration.json"
        write_json(record, {"registry": state})
        found["state"] = state
        return StageReport("register", outputs={"registration": workspace.relative(record)})

    monkeypatch.setattr(register, "_register", registers)
    monkeypatch.setattr(register, "_registry_state", lambda *_: found["state"])
    assert register.run(config_of("first"), workspace).status == "ran"
    assert register.run(config_of("first"), workspace).status == "skipped"
    for other in (None, {MODEL: {}}, {MODEL: {"champion": "1 bbbb"}}):
        found["state"] = other
        assert register.run(config_of("first"), workspace).status == "ran"
        assert register.run(config_of("first"), workspace).status == "skipped"
