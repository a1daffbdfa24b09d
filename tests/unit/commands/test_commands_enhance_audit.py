"""`agetf enhance --audit`: what it prints, what it writes, and its exit codes."""

import csv

import pytest
import yaml
from enhanced_shard import PARTITION, make_config, make_workspace

from agetf_pipeline import cli
from agetf_pipeline.commands.enhance_audit import COLUMNS
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.stages import enhance


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    workspace = make_workspace(tmp_path_factory.mktemp("workspace"), 2)
    enhance.run(make_config(), workspace, PARTITION)
    values = make_config().model_dump(mode="json")
    values["workspace"] = {"root": str(workspace.root)}
    (workspace.root / "config.yaml").write_text(yaml.safe_dump(values))
    return workspace


def audit(workspace: Workspace, *arguments: str) -> int:
    config = workspace.root / "config.yaml"
    return cli.main(["enhance", "--audit", "--quiet", "--config", str(config), *arguments])


def rows_of(workspace: Workspace) -> list[dict[str, str]]:
    with (workspace.stats / "enhance_audit" / "one.csv").open(newline="") as stream:
        reader = csv.DictReader(stream)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        return list(reader)


def test_a_clean_shard_is_exit_code_0_a_broken_one_1(workspace, capsys):
    assert audit(workspace) == 0
    printed = capsys.readouterr().out
    assert "caf/one: clean; images 2, rows 2" in printed
    assert rows_of(workspace) == []
    picture = min((workspace.processed / "caf_enhanced" / "one").glob("*.png"))
    data = picture.read_bytes()
    picture.write_bytes(data[:-1])
    stray = picture.with_name("stray.txt")
    stray.write_text("x")
    assert audit(workspace, "--partition", PARTITION) == 1
    printed = capsys.readouterr().out
    assert "caf/one: 1 error(s)" in printed
    assert "ERROR  picture_altered        1  run the stage enhance" in printed
    assert "note   foreign_file" in printed
    error, note = rows_of(workspace)
    assert (error["severity"], error["kind"]) == ("error", "picture_altered")
    assert error["image_id"] == picture.stem
    assert error["found"] == f"sha256 {hash_file(picture)}"
    assert (note["severity"], note["path"]) == ("note", workspace.relative(stray))
    stray.unlink()
    picture.write_bytes(data)
    assert audit(workspace) == 0


def test_a_shard_that_is_not_there_is_named(workspace, capsys):
    assert audit(workspace, "--partition", "caf/two") == 1
    assert "caf/one; found caf/two" in capsys.readouterr().err
    assert audit(workspace, "--partition", "ffhq_aging") == 1
    assert "found ffhq_aging" in capsys.readouterr().err


def test_only_the_stage_enhance_has_an_audit(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["filter", "--audit"])
    assert ended.value.code == 2


def test_a_shard_without_originals_is_still_audited(workspace, capsys):
    (workspace.processed / "caf_enhanced" / "gone").mkdir()
    assert audit(workspace) == 0
    assert "not_enhanced" in capsys.readouterr().out
