"""Work that is done once: the report of a stage, and skipping what would come out the same."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agetf_pipeline.core.batches import watching
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.hashing import fingerprint, hash_files
from agetf_pipeline.core.locks import exclusive_lock, is_held, shared_lock
from agetf_pipeline.core.secrets import redact
from agetf_pipeline.core.workspace import Workspace

_LOGGER = logging.getLogger(__name__)
_ABSENT = "absent"
FORGETTING_LOCK = "forgetting.lock"
"""Shared by every stage that runs; `agetf forget` wants it alone."""


@dataclass(frozen=True)
class StageReport:
    """What one run of a stage did, for the terminal and for Dagster's metadata.

    Attributes:
        stage: The stage's verb.
        partition: The partition, or None for a stage that is not partitioned.
        status: `ran` or `skipped`; while `planning`, `would_run` or `skipped`.
        counts: Rows, images, failures... by name.
        figures: Measured values by name; null where one could not be computed.
        outputs: Files and folders a person may want to open, relative to the workspace root.
        messages: What a person should read: everything odd, explained.
        data_version: Fingerprint of settings, code and inputs.
        duration_s: Seconds that the work took (when it last ran).
    """

    stage: str
    partition: str | None = None
    status: str = "ran"
    counts: dict[str, int] = field(default_factory=dict)
    figures: dict[str, float | None] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    data_version: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True)
class Assignment:
    """The work that a process is at, for those who share it out (`data/crew.py`).

    Attributes:
        stage: The stage's verb.
        partition: The partition, for a partitioned stage.
        data_version: Fingerprint of settings, code and inputs.
        joins: Whether another process leads, and this one only computes some of the rows.
        shown: Whether this process shows its progress.
    """

    stage: str
    partition: str | None
    data_version: str
    joins: bool = False
    shown: bool = True


_assignment: ContextVar[Assignment | None] = ContextVar("assignment", default=None)
_joins: ContextVar[bool | None] = ContextVar("joins", default=None)
_plans: ContextVar[bool] = ContextVar("plans", default=False)


def current_assignment() -> Assignment | None:
    """Return what `run_once` is at in this context; None outside of it."""
    return _assignment.get()


@contextmanager
def joining(shown: bool = True) -> Iterator[None]:
    """Let `run_once` join the run of another process while the block runs.

    It then takes no lock of the stage, skips nothing and writes no report: what it calls computes
    rows for the table of the process that leads, and raises when none are left to compute.

    Args:
        shown: Whether this process shows its progress.
    """
    token = _joins.set(shown)
    try:
        yield
    finally:
        _joins.reset(token)


@contextmanager
def planning() -> Iterator[None]:
    """Let `run_once` say what it would do, and do nothing, while the block runs."""
    token = _plans.set(True)
    try:
        yield
    finally:
        _plans.reset(token)


def is_planning() -> bool:
    """Whether nothing may be written: somebody asks what a stage would do."""
    return _plans.get()


def stage_lock(workspace: Workspace, stage: str, partition: str | None = None) -> Path:
    """Return the lock that a run of a stage holds alone."""
    what = stage if partition is None else f"{stage} {partition}"
    return workspace.state / "locks" / "stages" / f"{what}.lock"


def is_running(workspace: Workspace, stage: str, partition: str | None = None) -> bool:
    """Whether a process runs the stage now."""
    return is_held(stage_lock(workspace, stage, partition))


def report_path(workspace: Workspace, stage: str, partition: str | None = None) -> Path:
    """Return the file that keeps the last report of a stage."""
    name = stage if partition is None else f"{stage}/{partition}"
    return workspace.stats / "stages" / f"{name}.json"


def load_report(
    workspace: Workspace, stage: str, partition: str | None = None
) -> StageReport | None:
    """Return the last report of a stage; None where it never finished, or the report is damaged."""
    stored = _read_report(report_path(workspace, stage, partition))
    return None if stored is None else stored[0]


def _read_report(path: Path) -> tuple[StageReport, dict[str, str]] | None:
    """Return a stored report and the hashes of its outputs; None where there is no whole one.

    A damaged one means that the stage runs again; what it has in tables, it does not compute again.
    """
    try:
        stored = read_json(path)
        known = stored.pop("_output_hashes", {})
        report = StageReport(**stored)
        if isinstance(known, dict) and isinstance(report.outputs, dict):
            return report, known
        found: object = "other fields than a report's"
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        found = error
    _LOGGER.warning("expected a report in %s; found damage (%s): not counted", path, found)
    return None


def run_once(
    workspace: Workspace,
    stage: str,
    settings: Mapping[str, Any],
    code_version: str,
    inputs: Mapping[str, str],
    work: Callable[[], StageReport],
    partition: str | None = None,
) -> StageReport:
    """Run `work`, unless it ran before on the same settings, code and inputs and its files stand.

    Args:
        workspace: The workspace.
        stage: The stage's verb.
        settings: The part of the config that the result depends on (`model_dump(mode="json")`).
        code_version: Raised by hand when the results of the code change.
        inputs: Name to content hash of everything that the stage reads.
        work: Does the work. Its report's `outputs` must name everything that it wrote and that
            another stage reads; outputs are re-hashed before a skip, so that a file that was
            deleted or changed is made again.
        partition: The partition, for a partitioned stage.

    Returns:
        The report, with status `skipped` where nothing had to be done.

    Raises:
        DeviceLostError: The GPU was lost to this process.
        StageError: Memory was short where no batch could be halved; or somebody was forgotten while
            another run held the lock, so that the inputs may be out of date.
    """
    data_version = fingerprint(settings, code_version, inputs)
    path = report_path(workspace, stage, partition)
    what = stage if partition is None else f"{stage} {partition}"
    if _plans.get():
        kept = _kept(workspace, path, data_version)
        return kept or StageReport(stage, partition, "would_run", data_version=data_version)
    forgotten = _forgotten(workspace)
    everybody = workspace.state / "locks" / FORGETTING_LOCK
    shown = _joins.get()
    if shown is not None:
        with shared_lock(everybody), watching(what):
            _on(Assignment(stage, partition, data_version, joins=True, shown=shown), work)
        raise StageError(
            f"Expected {what} to be work that several processes can share; found that it is not. "
            "Let one process run it."
        )
    with shared_lock(everybody), exclusive_lock(stage_lock(workspace, stage, partition), what):
        if _forgotten(workspace) != forgotten:
            raise StageError(
                f"Expected nobody to be forgotten while {what} waited for its lock; found that "
                "somebody was, and what it is about to read may hold them. Run it again."
            )
        kept = _kept(workspace, path, data_version)
        if kept is not None:
            _LOGGER.info("%s: nothing new, kept (%.0f s saved)", what, kept.duration_s)
            return kept
        started_s = time.monotonic()
        _LOGGER.info("%s: started", what)
        with watching(what) as shortages:
            report = _on(Assignment(stage, partition, data_version), work)
        report = dataclasses.replace(
            report,
            stage=stage,
            partition=partition,
            status="ran",
            messages=[*report.messages, *shortages()],
            data_version=data_version,
        )
        report = dataclasses.replace(
            report,
            duration_s=round(time.monotonic() - started_s, 2),
            messages=[redact(message) for message in report.messages],
        )
        stored = dataclasses.asdict(report)
        stored["_output_hashes"] = _hash_outputs(workspace, report.outputs)
        write_json(path, stored)
        for message in report.messages:
            _LOGGER.warning("%s: %s", what, message)
        _LOGGER.info("%s: done in %.1f s %s", what, report.duration_s, report.counts or "")
        return report


def _kept(workspace: Workspace, path: Path, data_version: str) -> StageReport | None:
    """Return the stored report as `skipped`, where it is of this version and its files stand."""
    before = _read_report(path)
    if before is None:
        return None
    report, known = before
    if report.data_version != data_version or _ABSENT in known.values():
        return None
    if known != _hash_outputs(workspace, report.outputs):
        return None
    return dataclasses.replace(report, status="skipped")


def _on(assignment: Assignment, work: Callable[[], StageReport]) -> StageReport:
    """Do the work, which can look up what it is part of."""
    token = _assignment.set(assignment)
    try:
        return work()
    finally:
        _assignment.reset(token)


def _forgotten(workspace: Workspace) -> tuple[int, int] | None:
    """Return size and time of the register of what was forgotten; None where nobody was."""
    try:
        status = workspace.forgotten.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _hash_outputs(workspace: Workspace, outputs: Mapping[str, str]) -> dict[str, str]:
    hashes = {}
    for name, relative in sorted(outputs.items()):
        path = workspace.resolve(relative)
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        present = all(file.exists() for file in files) and bool(files)
        hashes[name] = hash_files(files, workspace.root) if present else _ABSENT
    return hashes
