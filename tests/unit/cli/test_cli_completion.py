"""Completion in a real shell: commands, options, choices."""

import subprocess

import pytest

from agetf_pipeline import cli
from agetf_pipeline.stages.names import STAGE_SUMMARIES


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("shell") / "agetf.bash"
    with path.open("w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        assert cli.main(["completion", "bash"]) == 0
    return str(path)


def complete(script: str, *words: str) -> list[str]:
    """Return what bash offers for the last of the words."""
    given = " ".join(f"'{word}'" for word in ("agetf", *words))
    code = (
        f"source '{script}'; COMP_WORDS=({given}); COMP_CWORD={len(words)}; "
        f"$(complete -p agetf | grep -o '_shtab_[a-z_]*') agetf '{words[-1]}'; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return [word.strip() for word in done.stdout.split("\n") if word.strip()]


def test_every_stage_is_offered(script):
    assert set(STAGE_SUMMARIES) <= set(complete(script, ""))
    assert complete(script, "rel") == ["relabel", "release"]


def test_options_of_a_command_are_offered(script):
    assert complete(script, "render", "--fo") == ["--format"]
    assert "--json" in complete(script, "predict", "--")


def test_other_shells_have_a_script_too(capsys):
    assert cli.main(["completion", "zsh"]) == 0
    assert "#compdef agetf" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cli.main(["completion", "nushell"])
    assert ended.value.code == 2
