"""The command line: exit codes, messages, and what it refuses."""

import json

import pytest

from agetf_pipeline import cli
from agetf_pipeline.stages.names import STAGE_SUMMARIES


def test_help_names_every_stage(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in STAGE_SUMMARIES)


def test_wrong_usage_is_exit_code_2():
    with pytest.raises(SystemExit) as ended:
        cli.main(["no-such-command"])
    assert ended.value.code == 2


def test_an_absent_config_is_exit_code_1_and_says_what_to_do(capsys, tmp_path):
    assert cli.main(["ingest", "--config", str(tmp_path / "absent.yaml")]) == 1
    assert "configs/" in capsys.readouterr().err


def test_an_unknown_key_is_named(capsys):
    assert cli.main(["ingest", "--config", "configs/test.yaml", "train.no_such_key=1"]) == 1
    assert "train.no_such_key" in capsys.readouterr().err


def test_rendering_nothing_says_so(capsys, tmp_path):
    arguments = ["render", "--input", str(tmp_path / "absent.jpg"), "--out", str(tmp_path)]
    assert cli.main([*arguments, "--model", str(tmp_path / "absent.safetensors")]) == 1
    assert "weights file" in capsys.readouterr().err


def test_overrides_may_stand_after_options(capsys, tmp_path):
    config = ["--config", "configs/test.yaml"]
    there = f"workspace.root={tmp_path}"
    for arguments in (["show", "3", *config, there], ["show", "3", there, *config]):
        assert cli.main(["registry", *arguments]) == 1
        assert str(tmp_path) in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.main(["registry", "show", "3", *config, there, "--no-such-option"])
    assert ended.value.code == 2


def test_reports_for_scripts_are_json_and_nothing_else(capsys, tmp_path):
    small = ["synthesize.num_ffhq_images=4", "synthesize.num_subjects_per_shard=1"]
    options = ["--config", "configs/test.yaml", "--json", f"workspace.root={tmp_path}", *small]
    for status in ("ran", "skipped"):
        assert cli.main(["synthesize", *options]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        report = json.loads(line)
        assert (report["stage"], report["status"]) == ("synthesize", status)
        assert report["data_version"]
