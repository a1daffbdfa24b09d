"""`agetf doctor`: whether this installation, machine, workspace and its services are fit to work.

It reads and asks; what it writes are probes of a few bytes that it removes again. No check ends
another: one that breaks is itself something found.
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.core.errors import AgetfError, ConfigError
from agetf_pipeline.core.secrets import redact
from agetf_pipeline.upkeep.findings import Finding, Severity, is_clean

if TYPE_CHECKING:
    from agetf_pipeline.config import PipelineConfig
    from agetf_pipeline.core.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Patient:
    """What is looked at.

    Attributes:
        config_path: The configuration file.
        config: What it says; None where it cannot be read.
        workspace: Its workspace; None likewise.
        problem: Why it cannot be read.
        dagster_home: Folder of the Dagster instance; None where none is known.
        lock: The pinned packages, `requirements.lock`.
        quick: Whether PyTorch is left alone, which takes seconds to import.
        port: Of the Dagster UI.
    """

    config_path: Path
    config: "PipelineConfig | None" = None
    workspace: "Workspace | None" = None
    problem: str | None = None
    dagster_home: Path | None = None
    lock: Path = REPOSITORY / "requirements.lock"
    quick: bool = False
    port: int = 3000


@dataclass(frozen=True)
class Item:
    """One thing that was looked at.

    Attributes:
        what: Its name, a few words.
        value: What was found.
        finding: What is wrong with it; None where it is well.
    """

    what: str
    value: str
    finding: Finding | None = None


Check = Callable[[Patient], Iterator[Item]]


@dataclass(frozen=True)
class Section:
    """The items of one area, in the order they were looked at."""

    name: str
    items: tuple[Item, ...]


def ill(severity: Severity, check: str, what: str, expected: str, found: str, remedy: str) -> Item:
    """Return an item with something wrong; `check` is `<area>/<check>`."""
    return Item(what, found, Finding(severity, check, what, expected, found, remedy))


def said(error: BaseException | str, otherwise: str) -> tuple[str, str]:
    """Return what an error of ours expected and what it found, for `ill`.

    Args:
        error: The error, or its message: "Expected a; found b. Do c."
        otherwise: What was expected, where the message is of another form.
    """
    text = redact(str(error))
    expected, mark, found = text.removeprefix("Expected ").partition("; found")
    if not mark or not text.startswith("Expected "):
        return otherwise, text
    return expected, found.lstrip(": ")


def admit(
    config_path: Path,
    overrides: Sequence[str] = (),
    dagster_home: Path | None = None,
    quick: bool = False,
) -> Patient:
    """Return what is to be looked at; a config that cannot be read is no reason to stop."""
    from agetf_pipeline.config import load_config, workspace_of

    try:
        config = load_config(config_path, overrides)
    except AgetfError as error:
        return Patient(config_path, problem=str(error), dagster_home=dagster_home, quick=quick)
    return Patient(
        config_path, config, workspace_of(config), dagster_home=dagster_home, quick=quick
    )


def examine(patient: Patient, areas: "Sequence[tuple[str, Sequence[Check]]] | None" = None):
    """Look at everything; return a `Section` an area.

    Args:
        patient: What is looked at.
        areas: Areas and their checks; None for all there are.
    """
    return [*examining(patient, areas)]


def examining(
    patient: Patient, areas: "Sequence[tuple[str, Sequence[Check]]] | None" = None
) -> Iterator[Section]:
    """Look at everything, as `examine` does; yield each `Section` once it has been looked at."""
    for name, checks in all_areas() if areas is None else areas:
        items = [item for check in checks for item in _isolated(name, check, patient)]
        yield Section(name, tuple(items))


def all_areas() -> list[tuple[str, Sequence[Check]]]:
    """Return the areas and their checks, in the order they are shown."""
    from agetf_pipeline.upkeep import (
        doctor_data,
        doctor_devices,
        doctor_installation,
        doctor_machine,
        doctor_services,
        doctor_weights,
        doctor_workspace,
    )

    return [
        ("installation", [*doctor_installation.CHECKS, config_check]),
        ("machine", doctor_machine.CHECKS),
        ("devices", doctor_devices.CHECKS),
        ("workspace", doctor_workspace.CHECKS),
        ("data", doctor_data.CHECKS),
        ("weights", doctor_weights.CHECKS),
        ("services", doctor_services.CHECKS),
    ]


def config_check(patient: Patient) -> Iterator[Item]:
    """Whether the configuration can be read."""
    if patient.problem is None:
        yield Item("configuration", str(patient.config_path))
    else:
        yield ill(
            "error", "installation/config", "configuration",
            *said(patient.problem, "settings that can be used"),
            "Correct the file; what depends on it was not looked at.",
        )  # fmt: skip


def findings_of(sections: Sequence[Section]) -> list[Finding]:
    """Return everything that is wrong."""
    return [item.finding for section in sections for item in section.items if item.finding]


def is_well(sections: Sequence[Section]) -> bool:
    """Whether nothing is broken."""
    return is_clean(findings_of(sections))


def _isolated(area: str, check: Check, patient: Patient) -> Iterator[Item]:
    try:
        yield from check(patient)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        name = check.__name__.removesuffix("_check")
        found = redact(f"{type(error).__name__}: {error} ({Path(place.filename).name})")
        severity: Severity = "error" if isinstance(error, ConfigError) else "warning"
        yield ill(
            severity, f"{area}/{name}", name.replace("_", " "), "a check that comes to its end",
            found, "Look at this part by hand: it could not be examined.",
        )  # fmt: skip
