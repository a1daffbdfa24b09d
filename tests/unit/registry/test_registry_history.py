from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from forked import FORKS, ensure_server, preload
from small_registry import MODEL, make_registry, promote_in_turn

from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry import history
from agetf_pipeline.registry.tracking import connected, tracking_uri_of
from agetf_pipeline.registry.versions import CHAMPION, find_alias

preload("small_registry")

GATES = history.GATES


@contextmanager
def opened(workspace: Workspace) -> Iterator:
    uri = tracking_uri_of(workspace)
    with history.registry_lock(workspace, uri), connected(uri) as client:
        yield client


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> bytes:
    """An SQLite file with four versions: MLflow takes seconds to make its tables."""
    workspace = make_registry(tmp_path_factory.mktemp("versions"), 4)
    return (workspace.root / "mlflow.db").read_bytes()


@pytest.fixture
def workspace(tmp_path, database) -> Workspace:
    (tmp_path / "config.yaml").write_text(f"workspace:\n  root: {tmp_path.as_posix()}\n")
    (tmp_path / "mlflow.db").write_bytes(database)
    return Workspace(tmp_path)


def champion_of(client) -> str | None:
    found = find_alias(client, MODEL, CHAMPION)
    return None if found is None else str(found.version)


def promote(client, number: str, by: str = GATES):
    return history.promote(client, MODEL, number, by, champion_of(client))


def line(client) -> list[str]:
    return history.line_of_champions(history.read_history(client, MODEL))


def test_a_rollback_goes_further_back_each_time(workspace):
    with opened(workspace) as client:
        for number in ("1", "2", "3", "1"):
            promote(client, number)
        assert line(client) == ["1", "2", "3", "1"]
        assert client.get_model_version(MODEL, "3").tags["agetf.previous_champion"] == "2"
        for expected in ("3", "2", "1"):
            history.roll_back(client, MODEL, "worse on real photographs")
            assert champion_of(client) == expected
        with pytest.raises(StageError, match="none before it"):
            history.roll_back(client, MODEL, "once more")
        assert champion_of(client) == "1"
        left = client.get_model_version(MODEL, "3").tags
        assert left["agetf.decision"] == "rolled back"
        assert "worse on real photographs" in left["agetf.rolled_back"]
        kept = client.get_model_version(MODEL, "1").tags
        assert kept["agetf.decision"] == "promoted"
        assert "agetf.rolled_back" not in kept
        actions = [(event.previous, event.version) for event in history.read_history(client, MODEL)]
    assert actions == [
        (None, "1"), ("1", "2"), ("2", "3"), ("3", "1"), ("1", "3"), ("3", "2"), ("2", "1"),
    ]  # fmt: skip


def test_a_rollback_can_skip_and_a_promotion_by_hand_takes_it_back(workspace):
    with opened(workspace) as client:
        for number in ("1", "2", "3"):
            promote(client, number)
        with pytest.raises(StageError, match="of 1, 2; found version 4"):
            history.roll_back(client, MODEL, "no", to="4")
        history.roll_back(client, MODEL, "both were wrong", to="1")
        assert (champion_of(client), line(client)) == ("1", ["1"])
        promote(client, "3", "by hand: it was right")
        version = client.get_model_version(MODEL, "3")
        assert "agetf.rolled_back" not in version.tags
        assert version.tags["agetf.decided_by"] == "by hand: it was right"
        assert version.tags["agetf.previous_champion"] == "1"
        assert "it was right" in version.description
        assert line(client) == ["1", "3"]
        with pytest.raises(StageError, match="version 9"):
            promote(client, "9")
        assert (champion_of(client), line(client)) == ("3", ["1", "3"])


def test_an_alias_set_by_other_means_is_taken_down(workspace):
    with opened(workspace) as client:
        promote(client, "1")
        client.set_registered_model_alias(MODEL, CHAMPION, "2")
        promote(client, "3")
        events = history.read_history(client, MODEL)
        assert [event.action for event in events] == ["promoted", "found", "promoted"]
        assert history.roll_back(client, MODEL, "back").version == "2"


def test_who_was_promoted_meanwhile_is_not_overwritten(workspace, monkeypatch):
    with opened(workspace) as client:
        promote(client, "1")
        # Between the decision and the change, on another machine.
        client.set_registered_model_alias(MODEL, CHAMPION, "2")
        with pytest.raises(StageError, match=r"Expected version 1 .* found version 2: somebody"):
            history.promote(client, MODEL, "3", GATES, "1")
        assert champion_of(client) == "2"
        # Later still: after the change was announced.
        announce = client.set_registered_model_tag

        def interferes(model, key, value):
            announce(model, key, value)
            if key == "agetf.pending":
                client.set_registered_model_alias(MODEL, CHAMPION, "4")

        with monkeypatch.context() as patch:
            patch.setattr(client, "set_registered_model_tag", interferes)
            with pytest.raises(StageError, match="found version 4: somebody else"):
                promote(client, "3")
        assert history.settle(client, MODEL) == "4"
        assert history.read_pending(client, MODEL) is None
        assert line(client) == ["1", "2", "4"]


@pytest.mark.parametrize("method", ["set_registered_model_alias", "set_model_version_tag"])
@pytest.mark.parametrize("change", ["promote", "roll_back"])
def test_a_change_cut_short_is_finished_or_forgotten(workspace, monkeypatch, method, change):
    with opened(workspace) as client:
        promote(client, "1")
        promote(client, "2")

        def dies(*_):
            raise KeyboardInterrupt

        change_it, argument = {
            "promote": (lambda _client, _model, number: promote(client, number), "3"),
            "roll_back": (history.roll_back, "worse"),
        }[change]
        with monkeypatch.context() as patch:
            patch.setattr(client, method, dies)
            with pytest.raises(KeyboardInterrupt):
                change_it(client, MODEL, argument)
        assert history.read_pending(client, MODEL) is not None
        done = method == "set_model_version_tag"
        after = {"promote": "3", "roll_back": "1"}[change] if done else "2"
        # What is written on the version never runs ahead of the alias.
        assert "agetf.decision" not in client.get_model_version(MODEL, "3").tags
        assert history.settle(client, MODEL) == after
        assert history.settle(client, MODEL) == after
        assert history.read_pending(client, MODEL) is None
        expected = {"2": ["1", "2"], "3": ["1", "2", "3"], "1": ["1"]}[after]
        assert line(client) == expected
        if done:
            of_two = client.get_model_version(MODEL, "2").tags["agetf.decision"]
            assert of_two == ("promoted" if change == "promote" else "rolled back")


def test_two_promotions_at_once_leave_one_champion_and_a_whole_history(workspace):
    rounds = (("1", "3", "1", "3"), ("2", "4", "2", "4"))
    ensure_server()
    barrier = FORKS.Barrier(2)
    children = [
        FORKS.Process(target=promote_in_turn, args=(workspace.root, numbers, barrier))
        for numbers in rounds
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    with opened(workspace) as client:
        events = history.read_history(client, MODEL)
        assert history.read_pending(client, MODEL) is None
        assert sorted(event.version for event in events) == sorted(rounds[0] + rounds[1])
        before = [None, *(event.version for event in events[:-1])]
        assert [event.previous for event in events] == before
        assert {event.action for event in events} == {"promoted"}
        assert champion_of(client) == events[-1].version
        assert list(client.get_registered_model(MODEL).aliases) == [CHAMPION]
        last = {event.version: event for event in events}
        for number, event in last.items():
            tags = client.get_model_version(MODEL, number).tags
            assert tags["agetf.previous_champion"] == (event.previous or "none")
            assert tags["agetf.decided_by"] == f"by hand: round of {number}"
