"""What the registry holds, read for people: versions with figures, decisions and history."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agetf_pipeline.core.errors import StageError
from agetf_pipeline.registry import history, versions
from agetf_pipeline.registry.gates import Gate, spell

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class Listed:
    """One version.

    Attributes:
        version: Its number.
        aliases: The names that point at it.
        run_name: Of the run that made it.
        run_id: Likewise.
        created: When, UTC, to the minute.
        figures: Key figures by name, with intervals.
        decision: `promoted`, `not promoted`, `rolled back`, or empty.
        tags: All that is written on it.
    """

    version: str
    aliases: tuple[str, ...]
    run_name: str
    run_id: str
    created: str
    figures: Mapping[str, Mapping[str, Any]]
    decision: str
    tags: Mapping[str, str]

    @property
    def reasons(self) -> str:
        """What the gates said, in sentences; empty where they were not asked."""
        return self.tags.get(versions.REASONS_TAG, "")

    @property
    def gates(self) -> list[Gate]:
        """The gates that were judged."""
        return [Gate(**gate) for gate in json.loads(self.tags.get(versions.GATES_TAG, "[]"))]


def list_versions(client: "MlflowClient", model: str) -> list[Listed]:
    """Return a model's versions, the newest first.

    Raises:
        StageError: There is no such model.
    """
    aliases = _aliases(client, model)
    found = client.search_model_versions(f"name = '{model}'")
    ordered = sorted(found, key=lambda item: -int(item.version))
    return [_listed(item, aliases) for item in ordered]


def find_listed(client: "MlflowClient", model: str, wanted: str) -> Listed:
    """Return one version by its number or an alias.

    Raises:
        StageError: There is no such model, version or alias.
    """
    aliases = _aliases(client, model)
    number = aliases.get(wanted, wanted)
    version = versions.get_version(client, model, number) if number.isdecimal() else None
    if version is None:
        known = [item.version for item in list_versions(client, model)]
        raise StageError(
            f"Expected a version or an alias of {model}; found neither named {wanted!r}. Versions: "
            f"{', '.join(known) or 'none'}; aliases: {', '.join(sorted(aliases)) or 'none'}."
        )
    return _listed(version, aliases)


def table(listed: list[Listed]) -> list[str]:
    """Lay out versions as lines of a table, a column a key figure."""
    names = list(dict.fromkeys(name for item in listed for name in item.figures))
    head = ("version", "aliases", "run", "created (UTC)", *map(_short, names), "decision")
    rows = [
        (
            item.version, ", ".join(item.aliases), item.run_name, item.created,
            *(_figure(item.figures.get(name)) for name in names), item.decision,
        )
        for item in listed
    ]  # fmt: skip
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]


def details(client: "MlflowClient", model: str, item: Listed) -> list[str]:
    """Lay out all that is known of a version as lines: origin, figures, gates, history."""
    tags = item.tags
    lines = [f"{model} version {item.version}"]
    for label, text in (
        ("aliases", ", ".join(item.aliases) or "none"),
        ("run", f"{item.run_name} ({item.run_id})"),
        ("created", f"{item.created} UTC"),
        ("weights sha256", tags.get(versions.WEIGHTS_TAG, "not recorded")),
        ("trained on", tags.get(versions.TRAINED_ON_TAG, "not recorded")),
        ("decision", item.decision or "none yet"),
        ("decided", f"{tags.get(versions.DECIDED_AT_TAG, 'not recorded')}, "
                    f"{tags.get(versions.DECIDED_BY_TAG, 'not recorded')}"),
        ("compared with", tags.get(versions.COMPARED_TAG, "none")),
        ("champion before", tags.get(versions.PREVIOUS_TAG, "none")),
        ("rolled back", tags.get(versions.ROLLED_BACK_TAG)),
    ):  # fmt: skip
        if text is not None:
            lines.append(f"  {label + ':':<17}{text}")
    lines.append("figures:")
    lines += [f"  {name}: {_figure(figure)}" for name, figure in item.figures.items()]
    lines.append("gates:")
    lines += gate_lines(item)
    lines.append(f"changes of the champion of {model}, oldest first:")
    lines += [_event_line(event) for event in history.read_history(client, model)] or ["  none"]
    pending = history.read_pending(client, model)
    if pending is not None:
        lines.append(f"{_event_line(pending)}: begun, not finished; the next change settles it")
    return lines


def gate_lines(item: Listed) -> list[str]:
    """Return what the gates say of a version, a line each."""
    if not item.gates:
        return [f"  {item.reasons or 'not asked yet: run the stage register'}"]
    return [f"  {gate.verdict:<13}{gate.reason} [{gate.figure}]" for gate in item.gates]


def _event_line(event: history.Event) -> str:
    moment = event.time[:16].replace("T", " ")
    return f"  {moment}  {event.previous or 'none'} -> {event.version}  {event.action}, {event.by}"


def _aliases(client: "MlflowClient", model: str) -> dict[str, str]:
    """Return alias to version."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(model).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = sorted(item.name for item in client.search_registered_models())
        raise StageError(
            f"Expected a registered model {model!r}; found {', '.join(known) or 'none at all'}. "
            "Run the stage register, or correct --model."
        ) from error
    return {str(alias): str(version) for alias, version in found.items()}


def _listed(version: "ModelVersion", aliases: Mapping[str, str]) -> Listed:
    number = str(version.version)
    moment = datetime.fromtimestamp((version.creation_timestamp or 0) / 1000, UTC)
    return Listed(
        number,
        tuple(sorted(alias for alias, of in aliases.items() if of == number)),
        version.tags.get(versions.RUN_NAME_TAG, ""),
        version.run_id or "",
        f"{moment:%Y-%m-%d %H:%M}",
        json.loads(version.tags.get(versions.FIGURES_TAG, "{}")),
        version.tags.get(versions.DECISION_TAG, ""),
        version.tags,
    )


def _short(name: str) -> str:
    """Return the end of a figure's name that says what it is: `mae_years/mixture`."""
    return name.split("/", 1)[1]


def _figure(item: Mapping[str, Any] | None) -> str:
    if item is None:
        return ""
    return spell(item) + (" synthetic" if item.get("synthetic") else "")
