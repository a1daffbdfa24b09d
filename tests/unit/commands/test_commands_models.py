"""`agetf models`: what it prints, its exit codes, and that it needs no network to list."""

import hashlib

import pytest
import yaml

from agetf_pipeline import cli

DATA = b"weights" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def project(tmp_path):
    """A config with a catalogue of one published file, one of unknown hash, and one in the net."""
    entry = {
        "title": "A network", "loader": "none", "source": "https://example.org",
        "by_hand": "the page", "licence": {"name": "MIT", "note": "Say who made it."},
        "used_by": ["train_enhancers.esrgan.weights"],
    }  # fmt: skip
    known = {"path": "known.pth", "url": None, "sha256": SHA256, "hash_source": "this test"}
    unknown = {"path": "unknown.pth", "url": None}
    remote = {"path": "remote.pth", "url": "https://127.0.0.1:9/remote.pth"}
    entries = {
        file["path"].removesuffix(".pth"): {**entry, "files": [file]}
        for file in (known, unknown, remote)
    }
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "models.yaml").write_text(yaml.safe_dump({"checkpoints": entries}))
    config = tmp_path / "configs" / "mine.yaml"
    config.write_text("runtime: {models_catalogue: configs/models.yaml}\n")
    return tmp_path


def run(project, *arguments) -> int:
    return cli.main(["models", *arguments, "--quiet", "--config", f"{project}/configs/mine.yaml"])


def put(project, name, data=DATA):
    path = project / "models" / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def status_of(printed: str) -> dict[str, str]:
    return {line.split()[0]: line.split()[1] for line in printed.splitlines() if " " in line}


def test_list_shows_every_status(project, capsys):
    put(project, "known.pth")
    put(project, "unknown.pth", b"unknown")
    assert run(project, "list") == 0
    printed = capsys.readouterr().out
    found = status_of(printed)
    assert (found["known"], found["unknown"]) == ("verified", "unverified")
    assert found["remote"] == "missing"
    assert "MIT" in printed
    assert "train_enhancers.esrgan.weights" in printed
    put(project, "known.pth", b"damaged")
    assert run(project, "import", str(project / "models/checkpoints/unknown.pth")) == 0
    capsys.readouterr()
    assert run(project, "list", "--files") == 0
    printed = capsys.readouterr().out
    found = status_of(printed)
    assert (found["known"], found["unknown"]) == ("mismatch", "accepted")
    assert "https://127.0.0.1:9/remote.pth" in printed


def test_verify_ends_with_1_on_a_mismatch_alone(project, capsys):
    assert run(project, "verify") == 0
    put(project, "known.pth")
    put(project, "unknown.pth", b"unknown")
    assert run(project, "verify") == 0
    assert f"known.pth: verified, sha256 {SHA256}" in capsys.readouterr().out
    put(project, "known.pth", b"damaged")
    assert run(project, "verify", "known") == 1
    printed = capsys.readouterr().out
    assert "mismatch" in printed
    assert "1 of them not what they should be" in printed
    assert run(project, "verify", "unknown", "remote") == 0
    assert "remote.pth: missing" in capsys.readouterr().out


def test_verify_knows_what_was_imported_under_a_new_name(project, capsys):
    mine = project / "mine.pth"
    mine.write_bytes(b"mine")
    assert run(project, "import", str(mine), "--name", "my-net") == 0
    assert "accepted by you" in capsys.readouterr().out
    assert run(project, "verify") == 0
    put(project, "mine.pth", b"changed")
    assert run(project, "verify") == 1
    assert "changed since" in capsys.readouterr().out
    assert run(project, "list") == 0
    assert status_of(capsys.readouterr().out)["(mine.pth)"] == "mismatch"


def test_import_refuses_and_accepts_a_mismatch(project, capsys):
    other = project / "known.pth"
    other.write_bytes(b"other")
    assert run(project, "import", str(other)) == 1
    assert "--accept-mismatch" in capsys.readouterr().err
    assert run(project, "import", str(other), "--accept-mismatch") == 0
    assert "AGAINST the published checksum" in capsys.readouterr().out


def test_fetch_without_network_says_what_to_put_where(project, capsys, monkeypatch):
    from agetf_pipeline.checkpoints import downloading

    monkeypatch.setattr(downloading.time, "sleep", lambda _: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    put(project, "known.pth")
    assert run(project, "fetch", "remote", "unknown", "known") == 1
    printed = capsys.readouterr().out
    place = project / "models" / "checkpoints"
    assert f"put remote.pth at {place / 'remote.pth'}" in printed
    assert f"put unknown.pth at {place / 'unknown.pth'}" in printed
    assert "already there" in printed  # one that fails does not stop the others
    assert "Say who made it." in printed


def test_unknown_names_and_no_names_are_refused(project, capsys):
    assert run(project, "fetch", "nothing") == 1
    assert "There are: known, remote, unknown" in capsys.readouterr().err
    for arguments in (["models"], ["models", "fetch"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2


def test_overrides_reach_the_config(project, capsys, tmp_path):
    assert run(project, "list", f"workspace.root={tmp_path / 'elsewhere'}") == 0
    assert str(tmp_path / "elsewhere") in capsys.readouterr().out
    absent = f"runtime.models_catalogue={tmp_path / 'absent.yaml'}"
    assert run(project, "list", absent) == 0
    assert "no catalogue" in capsys.readouterr().out
