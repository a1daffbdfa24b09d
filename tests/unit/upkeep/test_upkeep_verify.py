"""`agetf verify` as a whole: a clean workspace, the command, its page, what may go on beside."""

import csv
import json
import os
import random
import re
import shutil
import sqlite3
import tempfile
from pathlib import Path

import polars as pl
import pytest
import yaml
from verified_workspace import CAF, EXPERTS, FFHQ, copied, make_config, tree

from agetf_pipeline.cli import main
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import write_json
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.work import FORGETTING_LOCK
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.forgotten import Entry, Forgotten, begin, finish
from agetf_pipeline.data.schemas import KEEP_LIST, LABELS, TABLES
from agetf_pipeline.data.tables import read_table, table_path, write_table
from agetf_pipeline.enhance.findings import ERRORS, NOTES
from agetf_pipeline.registry.mixture_packaging import mixture_fingerprint
from agetf_pipeline.training import checkpoints
from agetf_pipeline.upkeep import verify_models
from agetf_pipeline.upkeep.findings import COLUMNS
from agetf_pipeline.upkeep.verify import verify_workspace
from agetf_pipeline.upkeep.verify_checks import AREAS, CHECKS, NOT_LINKS
from agetf_pipeline.upkeep.verify_describe import check_names, describe
from agetf_pipeline.upkeep.verify_survey import Survey

REPOSITORY = Path(__file__).resolve().parents[3]
NOBODY = 65534


@pytest.fixture
def workspace(tmp_path, tmp_path_factory) -> Workspace:
    return copied(tmp_path_factory, tmp_path / "w")


def checked(workspace, **options) -> list[tuple[str, str]]:
    result = verify_workspace(make_config(workspace.root), workspace, **options)
    return [(finding.check, finding.where) for finding in result.findings]


def test_a_whole_workspace_gives_nothing_and_stays_as_it_is(workspace):
    before = tree(workspace.root)
    result = verify_workspace(make_config(workspace.root), workspace)
    assert result.findings == ()
    assert tree(workspace.root) == before
    assert result.tallies["tables"]["tables"] == 16
    assert result.tallies["links"]["originals"] == result.tallies["links"]["images"] == 7
    assert result.tallies["links"]["files_hashed"] == 7 + 3
    assert result.tallies["links"]["enhanced"] == 4
    assert result.tallies["state"]["versions"] == 1


def test_stages_that_were_never_run_are_notes(workspace):
    for stage in ("filter", "caption", "predict"):
        (workspace.stats / "stages" / stage / "ffhq_aging.json").unlink()
    names = ("keep_list", "captions", "predictions")
    for name in names:
        table_path(workspace, TABLES[name], FFHQ).unlink()
    result = verify_workspace(make_config(workspace.root), workspace, ("links",), [FFHQ])
    notes = [f.where for f in result.findings if f.check == "links/not_run"]
    assert notes == sorted(f"data/tables/{name}/ffhq_aging.parquet" for name in names)
    assert {f.check for f in result.findings} == {"links/not_run", "links/not_kept"}


def test_a_corpus_that_was_never_read_is_a_note(tmp_path):
    (tmp_path / "data/raw/caf/new").mkdir(parents=True)
    (tmp_path / "data/raw/caf/new/0.png").write_bytes(b"?")
    found = checked(Workspace(tmp_path))
    assert found == [("links/not_run", "data/tables/images/caf/new.parquet")]


def test_a_refused_file_that_was_removed_is_a_note(workspace):
    (workspace.raw_caf / "one" / "broken.png").unlink()
    assert checked(workspace) == [("links/refused_file_gone", "data/raw/caf/one/broken.png")]


def test_parts_of_an_interrupted_run_are_no_gaps(workspace):
    part = workspace.state / "parts" / "predictions" / CAF / "0.parquet"
    part.parent.mkdir(parents=True)
    table = table_path(workspace, TABLES["predictions"], CAF)
    shutil.copyfile(table, part)
    frame = read_table(workspace, TABLES["predictions"], [CAF])
    write_table(workspace, TABLES["predictions"], CAF, frame.head(2))
    where = "data/.state/parts/predictions/caf/one/0.parquet"
    assert checked(workspace, areas=("links",)) == []
    assert ("files/unfinished", where) in checked(workspace)


def test_weights_that_the_configuration_names_have_to_be_there(workspace):
    config = make_config(workspace.root).model_dump()
    config["train_experts"]["experts"]["vgg16"]["weights"] = Path("models/given.pth")
    result = verify_workspace(PipelineConfig.model_validate(config), workspace, ("models",))
    assert [(f.check, f.where) for f in result.findings] == [
        ("models/configured_missing", "models/given.pth")
    ]


def test_a_registered_mixture_is_known_by_its_identity(workspace):
    folder = workspace.root / "mlruns" / "models" / "m-2" / "artifacts"
    mixture = Workspace(folder / "artifacts" / "mixture")
    weights = mixture.models / "checkpoints" / "vgg16" / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    shutil.copyfile(workspace.models / "enhance" / "esrgan.safetensors", weights)
    calibration = mixture.models / "moe" / "calibration.json"
    calibration.parent.mkdir()
    shutil.copyfile(workspace.models / "moe" / "calibration.json", calibration)
    values = {
        "train_experts": {"experts": {"vgg16": {"weights": mixture.relative(weights)}}},
        "relabel": {"calibration_path": mixture.relative(calibration)},
    }
    write_json(mixture.root / "config.json", values)
    (folder / "MLmodel").write_text("flavors: {}\n")
    identity = mixture_fingerprint(PipelineConfig.model_validate(values), mixture)
    with sqlite3.connect(workspace.root / "mlflow.db") as connection:
        row = ("age-mixture", 1, "models:/m-2", folder.as_uri(), "None")
        connection.execute("INSERT INTO model_versions VALUES (?, ?, ?, ?, ?)", row)
        tag = ("age-mixture", 1, "agetf.weights_sha256", identity)
        connection.execute("INSERT INTO model_version_tags VALUES (?, ?, ?, ?)", tag)
    connection.close()
    assert checked(workspace, areas=("state",)) == []
    weights.write_bytes(b"others")
    where = workspace.relative(mixture.root)
    assert checked(workspace, areas=("state",)) == [("state/mixture_differs", where)]
    weights.unlink()
    assert checked(workspace, areas=("state",)) == [("state/registered_missing", where)]


def give_all_rights(folder: Path) -> None:
    """Let everybody read and write a folder: what is taken away afterwards is all that lacks."""
    folder.chmod(0o777)
    for current, folders, names in os.walk(folder):
        for path in (Path(current, name) for name in (*folders, *names)):
            path.chmod(0o777 if path.is_dir() else 0o666)


def test_what_may_not_be_read_or_written_is_found(tmp_path_factory):
    # Not below pytest's folder, which only its owner may enter.
    top = Path(tempfile.mkdtemp(prefix="agetf-rights-"))
    top.chmod(0o755)
    user = os.geteuid()
    try:
        workspace = copied(tmp_path_factory, top / "w")
        give_all_rights(workspace.root)
        (workspace.raw_caf / "one" / "00.png").chmod(0)
        (workspace.stats / "quarantine").chmod(0o555)
        (workspace.state / "locks" / "stages" / "assemble.lock").chmod(0o444)
        if user == 0:  # whom no right is denied
            os.seteuid(NOBODY)
        found = set(checked(workspace))
    finally:
        os.seteuid(user)
        shutil.rmtree(top)
    assert found == {
        ("files/unreadable", "data/raw/caf/one/00.png"),
        ("files/not_writable", "stats/quarantine"),
        ("files/not_writable", "data/.state/locks/stages/assemble.lock"),
    }


def test_a_partition_at_work_is_left_out_and_said_so(workspace):
    (workspace.raw_caf / "one" / "01.png").unlink()
    lock = workspace.state / "locks" / "stages" / "predict caf" / "one.lock"
    with exclusive_lock(lock, "the test"):
        result = verify_workspace(make_config(workspace.root), workspace)
    at_work = "data/.state/locks/stages/predict caf/one.lock"
    told = [(f.check, f.where, f.found) for f in result.findings]
    assert told == [("state/at_work", at_work, "predict caf/one is running")]
    assert checked(workspace) == [("links/original_missing", "data/raw/caf/one/01.png")]


def test_nothing_is_said_of_links_while_something_is_forgotten(workspace):
    (workspace.raw_caf / "one" / "01.png").unlink()
    with exclusive_lock(workspace.state / "locks" / FORGETTING_LOCK, "the test"):
        found = checked(workspace)
    assert found == [("state/at_work", f"data/.state/locks/{FORGETTING_LOCK}")]


def test_what_went_with_a_forgotten_face_is_a_note_until_its_stage_runs(workspace):
    sheet = workspace.processed / "caf_enhanced" / "one" / "contact_sheet.jpg"
    sheet.unlink()
    lost = f"{workspace.relative(sheet.parent)}/contact_sheet.jpg"
    gone = [("files/output_missing", lost), ("links/enhanced_sheet_missing", lost)]
    assert checked(workspace) == gone
    finish(workspace, begin(workspace, Entry(image_ids=("ab" * 32,)), Forgotten()), 1, 1)
    assert checked(workspace) == [("files/since_forgetting", lost)]
    report = workspace.stats / "stages" / "enhance" / "caf" / "one.json"
    later_s = report.stat().st_mtime + 60
    os.utime(report, (later_s, later_s))
    assert checked(workspace) == gone


def test_nobody_is_kept_from_working_meanwhile(workspace):
    lock = workspace.state / "locks" / "stages" / "predict caf" / "one.lock"
    survey = Survey(make_config(workspace.root), workspace)
    with survey.undisturbed(CAF):
        assert not survey.is_at_work(CAF)
        with exclusive_lock(lock, "the test", wait=False):
            pass  # it would raise, were the lock held
    assert not survey.findings


def test_what_was_found_while_a_table_changed_is_dropped(workspace):
    survey = Survey(make_config(workspace.root), workspace)
    survey.add("links/gap", "before", "a", "b")
    with survey.undisturbed(CAF):
        survey.add("links/gap", "meanwhile", "a", "b")
        frame = read_table(workspace, LABELS, [CAF])
        write_table(workspace, LABELS, CAF, frame)
    found = [(finding.check, finding.where) for finding in survey.findings]
    where = f"data/tables/images/{CAF}.parquet"
    assert found == [("links/gap", "before"), ("state/at_work", where)]


@pytest.mark.parametrize("seed", [0, 1])
def test_garbage_everywhere_is_found_and_brings_nothing_down(workspace, seed):
    drawn = random.Random(seed)
    damaged = 0
    for path in sorted(p for p in workspace.root.rglob("*") if p.is_file()):
        data = bytearray(path.read_bytes())
        how = drawn.randrange(3)
        if how == 0:
            data = data[: len(data) // 2]
        elif how == 1:
            data = bytearray(drawn.randbytes(200))
        for _ in range(20 if data else 0):
            data[drawn.randrange(len(data))] = drawn.randrange(256)
        path.write_bytes(data)
        damaged += 1
    result = verify_workspace(make_config(workspace.root), workspace)
    assert "state/not_verified" not in {finding.check for finding in result.findings}
    assert len({finding.where for finding in result.findings}) > damaged / 3


def test_a_check_that_fails_itself_is_a_finding(workspace, monkeypatch):
    """Stands for an error in a check that nobody foresaw: the other areas are verified."""
    from agetf_pipeline.upkeep import verify

    def fail(_: Survey) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setitem(verify._VERIFIERS, "links", fail)
    result = verify_workspace(make_config(workspace.root), workspace)
    assert [(f.check, f.where) for f in result.findings] == [("state/not_verified", "links")]
    assert not result.is_clean
    assert result.tallies["state"]["databases"] == 1


def test_a_workspace_that_is_none_is_refused(tmp_path):
    for root in (tmp_path / "nothing", tmp_path):
        with pytest.raises(DataError, match="Expected a workspace at"):
            verify_workspace(make_config(root), Workspace(root))


@pytest.fixture
def command(workspace, tmp_path):
    """The command line on the workspace."""
    values = {
        "workspace": {"root": str(workspace.root)},
        "train_experts": {"experts": {name: {"size": "tiny"} for name in EXPERTS}},
    }
    config = tmp_path / "configs" / "test.yaml"
    config.parent.mkdir()
    config.write_text(yaml.safe_dump(values))
    return lambda *words: main(["verify", "--quiet", "--config", str(config), *words])


def test_the_command_says_clean(workspace, command, capsys):
    before = tree(workspace.root)
    assert command() == 0
    printed = capsys.readouterr().out
    for area in AREAS:
        assert re.search(rf"^{area} +clean; \d+ ", printed, re.MULTILINE)
    assert "clean: 0 errors, 0 warnings, 0 notes" in printed
    kept = workspace.stats / "verify.csv"
    assert kept.read_text() == ",".join(COLUMNS) + "\n"
    after = tree(workspace.root)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {str(kept)}
    assert command() == 0, "its own list is no finding"


def test_the_command_lists_what_it_found(workspace, command, capsys):
    path = workspace.raw_caf / "one" / "00.png"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert command() == 1
    assert "ERROR    links/original_altered: data/raw/caf/one/00.png" in capsys.readouterr().out
    rows = list(csv.DictReader((workspace.stats / "verify.csv").open()))
    assert [(row["check"], row["where"]) for row in rows] == [
        ("links/original_altered", "data/raw/caf/one/00.png")
    ]
    assert rows[0]["image_id"] == rows[0]["expected"]
    assert command("--quick") == 0, "pictures are not hashed"
    assert command("--only", "tables,models") == 0
    assert command("--partition", FFHQ) == 0
    capsys.readouterr()
    assert command("--partition", CAF, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["clean"] is False
    assert told["findings"][0]["check"] == "links/original_altered"
    assert told["areas"]["links"]["partitions"] == 1


def test_the_list_runs_nothing_in_a_spreadsheet(workspace, command):
    (workspace.tables / "labels" / "=1+1.parquet").write_bytes(b"?")
    assert command("--only", "tables") == 1
    assert "'=1+1" in (workspace.stats / "verify.csv").read_text()


def test_the_command_refuses_wrong_usage(workspace, command, capsys):
    assert command("--only", "everything") == 2
    assert command("--partition", "caf/none") == 2
    assert command(f"workspace.root={workspace.root / 'nowhere'}") == 1
    assert "Expected a workspace at" in capsys.readouterr().err


def test_an_instance_of_dagster_is_looked_at(workspace, command, tmp_path):
    home = tmp_path / "home" / "history"
    home.mkdir(parents=True)
    with sqlite3.connect(home / "runs.db") as connection:
        connection.execute("CREATE TABLE runs (id TEXT)")
    connection.close()
    assert command("--dagster-home", str(tmp_path / "home")) == 0
    (home / "runs.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    assert command("--dagster-home", str(tmp_path / "home")) == 1
    assert command("--dagster-home", str(tmp_path / "other")) == 1


def test_the_page_names_every_check_and_no_other():
    page = (REPOSITORY / "docs" / "verify.md").read_text(encoding="utf-8")
    assert describe(page) == page, "run python -m agetf_pipeline.upkeep.verify_describe"
    named = set(re.findall(r"`((?:tables|links|files|models|state)/\w+)`", page))
    assert named == set(check_names())


def test_every_check_is_used_and_proven():
    code = "".join(
        p.read_text() for p in (REPOSITORY / "agetf_pipeline/upkeep").glob("verify_*.py")
    )
    code += (REPOSITORY / "agetf_pipeline/upkeep/verify.py").read_text()
    tests = "".join(p.read_text() for p in Path(__file__).parent.glob("test_upkeep_verify*.py"))
    for name in CHECKS:
        assert code.count(f'"{name}"') >= 2, f"{name} is never reported"
        assert f'"{name}"' in tests, f"{name} is not tested"
    assert set(NOT_LINKS) < {*ERRORS, *NOTES}


def test_names_of_checkpoints_are_those_of_training():
    assert verify_models.CHECKPOINT_STATE == checkpoints.STATE_FILE
    assert verify_models.CHECKPOINT_BEST == checkpoints.BEST_FILE
    assert verify_models.CHECKPOINT_OPTIMIZER == checkpoints.OPTIMIZER_FILE


def test_a_report_is_hashed_as_its_stage_hashed_it(workspace):
    """An output that is a folder, too: the release."""
    stored = json.loads((workspace.stats / "stages" / "release.json").read_text())
    assert list(stored["_output_hashes"]) == ["release"]
    keep_list = read_table(workspace, KEEP_LIST, [CAF])
    assert keep_list.select(pl.col("keep").all()).item()
    assert checked(workspace, areas=("files",)) == []
