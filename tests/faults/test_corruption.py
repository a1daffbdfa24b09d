"""Bytes that changed, or went, in every kind of file that the pipeline reads back.

A stage does one of two things: it comes to the result of an undisturbed run all the same, or it
ends with a message that names the file and what to do, and comes to that result once it was done.
"""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import torch
from small_registry import agetf, make_registry
from tiny_shards import write_config, write_shard

from agetf_pipeline.cli import main
from agetf_pipeline.config import load_config
from agetf_pipeline.core import fitting
from agetf_pipeline.core.errors import ConfigError, DataError, WeightsError
from agetf_pipeline.core.fitting import FitResult
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import read_card, read_state, save_weights
from agetf_pipeline.core.work import StageReport, load_report, report_path, run_once
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.remote import _read_ledger
from agetf_pipeline.moe.calibration import load_calibration


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def overwrite(path: Path) -> None:
    path.write_bytes(b"\0\xff<html>" * 40)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": truncate, "empty": empty, "flipped": flip, "overwritten": overwrite,
}  # fmt: skip


def tables(root: Path) -> dict[str, str]:
    found = sorted((root / "data" / "tables").rglob("*.parquet"))
    return {path.relative_to(root).as_posix(): hash_file(path) for path in found}


def ingest(config: Path) -> int:
    return main(["ingest", "--config", str(config), "--quiet"])


@pytest.fixture(scope="module")
def ingested(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ingested") / "workspace"
    for number in range(2):
        write_shard(Workspace(root), f"shard-{number}", seed=number, num_images=2)
    assert ingest(write_config(root.parent, root)) == 0
    return root


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_that_ingest_reads_back(ingested, tmp_path, capsys, damage):
    expected = tables(ingested)
    stored = [
        path.relative_to(ingested)
        for folder in ("data/tables", "data/.state", "stats")
        for path in sorted((ingested / folder).rglob("*"))
        if path.is_file() and path.suffix != ".lock" and path.stat().st_size
    ]
    assert {".parquet", ".json"} <= {path.suffix for path in stored}
    for number, name in enumerate(stored):
        root = tmp_path / str(number) / "workspace"
        shutil.copytree(ingested, root)
        config = write_config(root.parent, root)
        DAMAGES[damage](root / name)
        capsys.readouterr()
        code = ingest(config)
        said = capsys.readouterr().err
        assert "Traceback" not in said, (name, said)
        if code:
            assert code == 1
            assert name.name in said, (name, said)
            assert "Delete" in said or "delete" in said, (name, said)
            (root / name).unlink()
            assert ingest(config) == 0, (name, capsys.readouterr().err)
        assert tables(root) == expected, name


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_report_means_again(tmp_path, damage, caplog):
    workspace, calls = Workspace(tmp_path), []

    def work() -> StageReport:
        calls.append(1)
        return StageReport("ingest", counts={"images": 3}, messages=["a note " * 20])

    first = run_once(workspace, "ingest", {}, "1", {}, work)
    assert run_once(workspace, "ingest", {}, "1", {}, work).status == "skipped"
    DAMAGES[damage](report_path(workspace, "ingest"))
    damaged = load_report(workspace, "ingest")
    assert damaged is None or damaged.stage == "ingest"  # a flip inside a text is still a report
    again = run_once(workspace, "ingest", {}, "1", {}, work)
    assert again.counts == first.counts
    assert len(calls) == (2 if damaged is None else 1)
    if damaged is None:
        assert "found damage" in caplog.text
    assert load_report(workspace, "ingest") is not None


def test_a_report_of_other_fields_means_again(tmp_path):
    workspace = Workspace(tmp_path)
    path = report_path(workspace, "ingest")
    path.parent.mkdir(parents=True)
    for text in ("[]", "3", '{"stage": "ingest", "colour": 1}', '{"stage": "x", "outputs": 3}'):
        path.write_text(text)
        assert load_report(workspace, "ingest") is None
    assert run_once(workspace, "ingest", {}, "1", {}, lambda: StageReport("x")).status == "ran"


@pytest.mark.parametrize("damage", ["truncated", "empty", "overwritten"])
def test_damaged_weights_are_named(tmp_path, damage):
    path = tmp_path / "expert.safetensors"
    save_weights(path, torch.nn.Linear(8, 8), {"trained_on": "nothing"})
    DAMAGES[damage](path)
    for read in (read_card, read_state):
        with pytest.raises(WeightsError, match=r"expert\.safetensors") as caught:
            read(path)
        assert "again" in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_of_a_training_starts_it_afresh(tmp_path, damage, caplog):
    checkpoint = tmp_path / "training.pt"
    network = torch.nn.Linear(64, 64)
    optimizer = torch.optim.SGD(network.parameters())
    keeper = fitting._Keeper(network, optimizer, checkpoint, "one")
    keeper._pause_s = -1.0
    keeper.save_now_and_then(FitResult([1.0, 0.5]))
    assert keeper.resume().losses == [1.0, 0.5]
    DAMAGES[damage](checkpoint)
    assert keeper.resume().losses == []
    assert "starting afresh" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_calibration_is_named(tmp_path, damage):
    path = tmp_path / "calibration.json"
    path.write_text('{"version": "x", "experts": {}, "more": [1, 2, 3, 4]}')
    DAMAGES[damage](path)
    with pytest.raises(DataError, match=r"calibration\.json") as caught:
        load_calibration(path)
    assert "run the stage 'relabel' again" in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger_of_copied_files_costs_copies_alone(tmp_path, damage):
    path = tmp_path / "ledger.jsonl"
    path.write_text("".join(f'["{n}.png", {n}, "tag"]\n' for n in range(20)))
    whole = _read_ledger(path)
    DAMAGES[damage](path)
    known = _read_ledger(path)
    assert len(known) < len(whole) or damage == "flipped"
    assert {name: whole[name] for name in known if name in whole}.items() <= whole.items()


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_a_damaged_registry_is_named_and_can_be_begun_anew(tmp_path, capsys, damage):
    workspace = make_registry(tmp_path / "workspace", 1)
    database = workspace.root / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(database.read_bytes())
    if damage == "overwritten":  # the pages after the first, which says what the file is
        data[4096:] = b"\xa5" * (len(data) - 4096)
        database.write_bytes(bytes(data))
    else:
        overwrite(database)
    capsys.readouterr()
    assert agetf(workspace, "list") == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "mlflow.db" in said
    assert "found damage" in said
    assert "what is lost" in said
    database.rename(database.with_suffix(".damaged"))
    assert agetf(workspace, "list") == 0


@pytest.mark.parametrize("damage", ["overwritten", "huge", "laughs", "endless", "directory"])
def test_a_damaged_config_is_named(tmp_path, damage):
    path = tmp_path / "configs" / "own.yaml"
    path.parent.mkdir()
    if damage == "overwritten":
        path.write_bytes(b"\0\xff\xfe binary")
    elif damage == "huge":
        with path.open("wb") as stream:
            stream.truncate(100_000_000)
    elif damage == "laughs":
        lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
        path.write_text("\n".join(["a0: &a0 [lol]", *lines]))
    elif damage == "endless":
        path.write_text("extends: own.yaml")
    else:
        path.mkdir()
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        load_config(path)


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
@pytest.mark.parametrize("command", ["launch", "serve"])
def test_a_damaged_dagster_instance_is_named(tmp_path, command, damage, monkeypatch, capsys):
    """The databases are real ones of Dagster's; only the pages behind the first are damaged."""
    from jobs import launch, serve

    home = tmp_path / "home"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("AGETF_CONFIG", "configs/test.yaml")
    monkeypatch.setattr("signal.signal", lambda *_: None)  # of this process, the tests'
    launch.prepare_home(home)
    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 1)
        instance.get_runs()
    databases = sorted(home.rglob("*.db"))
    assert databases
    for database in databases:
        data = database.read_bytes()
        kept = data[: len(data) // 2] if damage == "truncated" else data[:1024]
        database.write_bytes(kept if damage == "truncated" else kept + b"\xa5" * len(data[1024:]))
        for log in home.rglob(f"{database.name}-*"):
            log.unlink()
    config = tmp_path / "configs" / "own.yaml"
    config.parent.mkdir()
    config.write_text(f"workspace: {{root: {tmp_path / 'workspace'}}}\n")
    capsys.readouterr()
    arguments = ["--home", str(home)]
    if command == "launch":
        assert launch.main(["--config", str(config), *arguments]) == 1
    else:
        assert serve.main([*arguments, "--port", "0"]) == 1
    said = capsys.readouterr().err
    assert "Expected Dagster's databases" in said, said
    assert "runs.db" in said
    assert f"mv {home} {home}.damaged" in said
    assert "Tables, models, pictures and the registry" in said
