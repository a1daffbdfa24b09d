import json

import pytest
from small_registry import MODEL, agetf, make_registry

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry.promotion import Decision, Gate
from agetf_pipeline.registry.tracking import connected, tracking_uri_of
from agetf_pipeline.registry.versions import set_tags, write_findings

MAE = "renderings/age_mae_years"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """Three versions; of the third the gates say that it may be worse than the first."""
    workspace = make_registry(tmp_path_factory.mktemp("registry"), 3)
    figure = {"value": 8.0, "low": 7.5, "high": 8.5, "n": 300, "synthetic": True}
    gate = Gate(
        "against_champion/age_mae_years", "fails", "age MAE (years): may be worse", 0.5, 1.0, 0.7,
        1.3, 300, True,
    )  # fmt: skip
    with connected(tracking_uri_of(workspace)) as client:
        set_tags(client, MODEL, "3", {"agetf.figures": json.dumps({MAE: figure})})
        write_findings(client, MODEL, "3", Decision(False, (gate.reason,), (gate,)), "1")
    return workspace


@pytest.fixture
def say(workspace, capsys):
    def run(*arguments: str, code: int = 0) -> str:
        assert agetf(workspace, *arguments) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


def test_without_a_registry_there_is_nothing_to_list(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(f"workspace:\n  root: {tmp_path.as_posix()}\n")
    assert agetf(Workspace(tmp_path), "list") == 0
    assert "run the stage register" in capsys.readouterr().out
    assert agetf(Workspace(tmp_path), "show", "champion") == 1
    assert "no registry yet" in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    "arguments",
    [("promote", "1"), ("rollback",), ("promote", "1", "--reason", " "), ("show",), ("remove",)],
)
def test_wrong_usage(workspace, arguments, capsys):
    with pytest.raises(SystemExit) as exit_code:
        agetf(workspace, *arguments)
    assert exit_code.value.code == 2
    assert "usage" in capsys.readouterr().err


# The tests below tell one story over one registry, in this order.


def test_nobody_is_champion_at_first(say):
    lines = say("list").splitlines()
    assert [line.split()[0] for line in lines] == ["version", "3", "2", "1"]
    assert "champion" not in "".join(lines[1:])
    assert "8 [7.5, 8.5] (n = 300) synthetic" in lines[1]
    assert "aliases: none" in say("show", "champion", code=1)
    assert "found no champion" in say("rollback", "--reason", "worse", code=1)
    assert "neither named '9'" in say("promote", "9", "--reason", "try", code=1)
    assert "age-mixture" in say("list", "--model", "other", code=1)
    assert "found age-transformer" in say("list", "--model", "age-mixture", code=1)


def test_a_promotion_by_hand_says_what_the_gates_say(say):
    said = say("promote", "1", "--reason", "the first")
    assert "not asked yet" in said
    assert "version 1 (before: none); promoted, by hand: the first" in said
    said = say("promote", "3", "--reason", "sharper, I looked")
    assert "fails" in said
    assert "age MAE (years): may be worse [against_champion/age_mae_years]" in said
    assert "compared with version 1" in said
    assert "note:" not in said
    assert "already" in say("promote", "champion", "--reason", "again")
    champion = say("list").splitlines()[1]
    assert champion.split()[:3] == ["3", "champion", "run-3"]
    assert champion.endswith("promoted")


def test_show_says_all(say):
    said = say("show", "champion")
    assert said == say("show", "3")
    assert "aliases:         champion" in said
    assert "by hand: sharper, I looked" in said
    assert "champion before: 1" in said
    assert f"{MAE}: 8 [7.5, 8.5] (n = 300) synthetic" in said
    assert "1 -> 3  promoted" in said


def test_a_rollback_restores(say):
    assert "earlier champion" in say("rollback", "--reason", "x", "--to", "2", code=1)
    assert "version 1 (before: 3); rolled back" in say("rollback", "--reason", "worse in the dark")
    assert "run-1" in say("show", "champion")
    assert "worse in the dark" in say("show", "3")
    assert "none before it" in say("rollback", "--reason", "more", code=1)
    said = say("promote", "2", "--reason", "new", "--model", "age-transformer")
    assert "note: the champion is version 1 now" in said
