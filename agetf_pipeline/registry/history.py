"""Who is and was champion: changed in one place, under a lock, each change an event that stays.

Every change is announced in a tag of the registered model before the alias is set, and moved into
the history after it: what a killed process left is finished, or forgotten, by the next one.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.registry.versions import (
    CHAMPION,
    DECIDED_AT_TAG,
    DECIDED_BY_TAG,
    DECISION_TAG,
    PREVIOUS_TAG,
    ROLLED_BACK_TAG,
    describe,
    find_alias,
    get_version,
    set_tags,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PROMOTED, ROLLED_BACK, FOUND = "promoted", "rolled back", "found"
GATES, OTHERWISE = "gates", "set by other means"
_EVENT_PREFIX, _PENDING = "agetf.history.", "agetf.pending"
_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Event:
    """One change of the champion.

    Attributes:
        time: When, UTC, ISO 8601.
        action: `promoted`, `rolled back`, or `found` where somebody set the alias by other means.
        version: Champion after it.
        previous: Champion before it; None where there was none.
        by: `gates`, or `by hand: <reason>`.
    """

    time: str
    action: str
    version: str
    previous: str | None
    by: str


@contextmanager
def registry_lock(workspace: Workspace, tracking_uri: str) -> Iterator[None]:
    """Hold the registry's lock while the block runs: others on this machine wait.

    SQLite: beside its file, so that all workspaces that use it share the lock. A server: in the
    workspace, so that only the processes of this workspace keep out of each other's way.
    """
    if tracking_uri.startswith(_SQLITE):
        database = Path(tracking_uri.removeprefix(_SQLITE))
        path = database.with_name(f".{database.name}.lock")
    else:
        name = hashlib.sha256(tracking_uri.encode()).hexdigest()[:16]
        path = workspace.state / "locks" / f"registry-{name}.lock"
    with exclusive_lock(path, f"the registry {tracking_uri}"):
        yield


def read_history(client: "MlflowClient", model: str) -> list[Event]:
    """Return the changes of a model's champion, oldest first."""
    tags = client.get_registered_model(model).tags
    return [Event(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(_EVENT_PREFIX)]


def read_pending(client: "MlflowClient", model: str) -> Event | None:
    """Return the change that was begun and not finished, None where there is none."""
    text = client.get_registered_model(model).tags.get(_PENDING)
    return None if text is None else Event(**json.loads(text))


def line_of_champions(events: Sequence[Event]) -> list[str]:
    """Return the versions that a rollback can go back through; the champion is the last.

    A promotion adds one; a rollback drops those after the version that it went back to.
    """
    line: list[str] = []
    for event in events:
        if event.action == ROLLED_BACK and event.version in line[:-1]:
            del line[_last_index(line[:-1], event.version) + 1 :]
        else:
            line.append(event.version)
    return line


def settle(client: "MlflowClient", model: str) -> str | None:
    """Bring the history in line with the alias; to be called under the lock, before a change.

    Finishes a change whose alias was set, forgets one whose alias was not, and takes down an alias
    that was set by other means.

    Returns:
        The champion's version, None where there is none.
    """
    champion, pending = find_alias(client, model, CHAMPION), read_pending(client, model)
    number = None if champion is None else str(champion.version)
    if pending is not None and pending.version == number:
        _finish(client, model, pending)
    elif pending is not None:
        client.delete_registered_model_tag(model, _PENDING)
    line = line_of_champions(read_history(client, model))
    if champion is not None and number is not None and line[-1:] != [number]:
        former = line[-1] if line else None
        if champion.tags.get(DECISION_TAG) != PROMOTED:
            set_tags(client, model, number, {DECISION_TAG: OTHERWISE})
        _clear_rolled_back(client, model, number)
        _append(client, model, Event(now(), FOUND, number, former, OTHERWISE))
    return number


def promote(
    client: "MlflowClient", model: str, version: str, by: str, decided_beside: str | None
) -> Event:
    """Make a version the champion; to be called under the lock.

    Args:
        client: Of the registry.
        model: The registered model.
        version: The version.
        by: `gates`, or `by hand: <reason>`.
        decided_beside: Who was champion when it was decided; None where nobody was.

    Raises:
        StageError: There is no such version, somebody else is champion than when it was decided,
            or the alias does not hold what was set.
    """
    previous = settle(client, model)
    if get_version(client, model, version) is None:
        raise StageError(
            f"Expected version {version} of {model}; found none. See: agetf registry list."
        )
    _require_champion(model, decided_beside, previous)
    return _change(client, model, Event(now(), PROMOTED, version, previous, by))


def roll_back(client: "MlflowClient", model: str, reason: str, to: str | None = None) -> Event:
    """Give the place back to the champion before, or to an earlier one; under the lock.

    Args:
        client: Of the registry.
        model: The registered model.
        reason: Why, for the record.
        to: An earlier champion; None for the one before.

    Raises:
        StageError: There is no champion, none before it, or `to` is none of those before.
    """
    champion = settle(client, model)
    before = line_of_champions(read_history(client, model))[:-1]
    if champion is None or not before:
        found = "no champion" if champion is None else f"version {champion}, and none before it"
        raise StageError(
            f"Expected a champion of {model} and one before it to go back to; found {found}. "
            "Choose a version with agetf registry promote."
        )
    target = before[-1] if to is None else to
    if target not in before:
        raise StageError(
            f"Expected an earlier champion of {model} to go back to, of {', '.join(before)}; found "
            f"version {target}. Choose another version with agetf registry promote."
        )
    if get_version(client, model, target) is None:
        raise StageError(
            f"Expected version {target} of {model}, champion before; found that it was deleted. "
            f"Give an earlier one with --to, of {', '.join(before)}."
        )
    return _change(client, model, Event(now(), ROLLED_BACK, target, champion, f"by hand: {reason}"))


def _change(client: "MlflowClient", model: str, event: Event) -> Event:
    client.set_registered_model_tag(model, _PENDING, _dump(event))
    # Read again at the last moment: a process of another machine does not see our lock.
    before = find_alias(client, model, CHAMPION)
    _require_champion(model, event.previous, None if before is None else str(before.version))
    client.set_registered_model_alias(model, CHAMPION, event.version)
    champion = find_alias(client, model, CHAMPION)
    if champion is None or str(champion.version) != event.version:
        raise StageError(
            f"Expected version {event.version} to be the champion of {model} now; found "
            f"{'none' if champion is None else champion.version}: another machine changed it at "
            "the same time. Look (agetf registry show champion) and decide again."
        )
    _finish(client, model, event)
    return event


def _require_champion(model: str, expected: str | None, found: str | None) -> None:
    """Refuse a change that was decided beside another champion; it is then forgotten."""
    if found == expected:
        return
    words = ["nobody" if number is None else f"version {number}" for number in (expected, found)]
    raise StageError(
        f"Expected {words[0]} to be the champion of {model}, as when it was decided; found "
        f"{words[1]}: somebody else changed it meanwhile. Look (agetf registry show champion), run "
        "evaluate again and decide anew."
    )


def _finish(client: "MlflowClient", model: str, event: Event) -> None:
    """Write a change whose alias is set on its version and into the history; may be repeated."""
    back = event.action == ROLLED_BACK
    if back and event.previous and get_version(client, model, event.previous) is not None:
        text = f"{event.time}, {event.by}"
        tags = {DECISION_TAG: ROLLED_BACK, ROLLED_BACK_TAG: text}
        set_tags(client, model, event.previous, tags)
        sentence = f"Rolled back to version {event.version} ({text})."
        describe(client, model, event.previous, sentence)
    _clear_rolled_back(client, model, event.version)
    if back:
        set_tags(client, model, event.version, {DECISION_TAG: PROMOTED})
    else:
        tags = {
            PREVIOUS_TAG: event.previous or "none", DECIDED_AT_TAG: event.time,
            DECIDED_BY_TAG: event.by, DECISION_TAG: PROMOTED,
        }  # fmt: skip
        set_tags(client, model, event.version, tags)
        describe(client, model, event.version, f"Promoted ({event.time}, {event.by}).")
    _append(client, model, event)
    client.delete_registered_model_tag(model, _PENDING)


def _clear_rolled_back(client: "MlflowClient", model: str, number: str) -> None:
    if ROLLED_BACK_TAG in client.get_model_version(model, number).tags:
        client.delete_model_version_tag(model, number, ROLLED_BACK_TAG)


def _append(client: "MlflowClient", model: str, event: Event) -> None:
    events = read_history(client, model)
    if event not in events:
        client.set_registered_model_tag(
            model, f"{_EVENT_PREFIX}{len(events) + 1:06d}", _dump(event)
        )


def _dump(event: Event) -> str:
    return json.dumps(asdict(event), ensure_ascii=False, sort_keys=True)


def _last_index(line: Sequence[str], version: str) -> int:
    return len(line) - 1 - list(reversed(line)).index(version)


def now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
