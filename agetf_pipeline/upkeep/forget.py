"""Forgetting an image or a person: recorded, removed everywhere, looked for again.

The order makes a kill at any moment harmless. First the register says what must not come back, and
that it was begun. Then everything made of it goes, then originals where that is asked for, then the
rows of the tables `quarantine` and `images`, by which an interrupted request is found again. Then
all is looked through once more, and only if nothing is left the request is marked as done.
"""

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import DataError, StageError, UnavailableError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.work import FORGETTING_LOCK
from agetf_pipeline.core.workspace import Workspace, is_caf
from agetf_pipeline.data import forgotten
from agetf_pipeline.data.csv_files import for_spreadsheets
from agetf_pipeline.data.forgotten import DETAIL, Entry, Forgotten
from agetf_pipeline.data.listing import escape_name
from agetf_pipeline.data.quarantine import FORGOTTEN, quarantine_frame, quarantine_row
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.data.tables import list_partitions, read_table, write_table
from agetf_pipeline.data.trained_on import TrainedModel, models_trained_on, without_list
from agetf_pipeline.registry.tracking import tracking_uri_of
from agetf_pipeline.registry.trained_on import TrainedVersion, versions_trained_on
from agetf_pipeline.upkeep.findings import Finding
from agetf_pipeline.upkeep.forget_look import look_again, look_into_databases
from agetf_pipeline.upkeep.forget_match import Target
from agetf_pipeline.upkeep.forget_plan import FOLDERS, Action, find_actions, people_kept
from agetf_pipeline.upkeep.forget_release import renew_checksums
from agetf_pipeline.upkeep.forget_rows import remove_rows
from agetf_pipeline.upkeep.forget_target import file_of, find_target

_WAIT_S = 1.0


@dataclass
class ForgetReport:
    """What forgetting did, or would do.

    Attributes:
        num_images: Contents that were forgotten.
        num_subjects: People.
        actions: Files that were changed or removed.
        num_table_rows: Rows that left the table `images`.
        originals: Files of the target in corpora, and whether each was removed.
        replaced: Files of other pictures that took the name of one of the target: they stay.
        releases: Releases whose tables changed.
        models: Networks of the workspace that learned from it.
        versions: Registered versions that did.
        left: What is left of it where nothing should be.
        messages: What a person should know.
        is_dry: Whether nothing was changed.
        image_ids: The contents.
    """

    num_images: int
    num_subjects: int
    actions: list[Action]
    num_table_rows: int
    originals: dict[Path, bool] = field(default_factory=dict)
    replaced: list[Path] = field(default_factory=list)
    releases: set[Path] = field(default_factory=set)
    models: list[TrainedModel] = field(default_factory=list)
    versions: list[TrainedVersion] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    is_dry: bool = False
    image_ids: frozenset[str] = frozenset()


def forget(
    config: PipelineConfig,
    workspace: Workspace,
    what: Iterable[str],
    subjects: bool = False,
    shards: Collection[str] = (),
    delete_originals: bool = False,
    dry_run: bool = False,
    dagster_home: Path | None = None,
) -> ForgetReport:
    """Forget images or people, and go on with requests that were interrupted.

    Args:
        config: The configuration.
        workspace: The workspace.
        what: Image ids, paths of photographs, or names of subjects; none: only what is unfinished.
        subjects: Whether `what` are names of subjects.
        shards: Shards in which subjects are meant; none: all there are, and all to come.
        delete_originals: Whether originals go, too, those below the workspace's `data/raw`.
        dry_run: Change nothing, and say what would be done.
        dagster_home: Of a Dagster instance whose databases are looked into, and left alone.

    Raises:
        DataError: Something is unknown or ambiguous, or a file cannot be read.
        StageError: A stage is running.
    """
    _require_workspace(workspace)
    with _alone_in(workspace):
        register, words = forgotten.read_forgotten(workspace), list(what)
        waiting = forgotten.unfinished(register)
        target = find_target(config, workspace, words, register, subjects, shards, delete_originals)
        if words and not dry_run:
            register = _begin(workspace, register, target, delete_originals)
        report = _report(config, workspace, target, resumed=bool(waiting))
        report.is_dry = dry_run
        if not dry_run:
            _remove(workspace, target, report, resumed=bool(waiting))
        # Afterwards: a server that is away must not keep anybody from being forgotten.
        _ask_networks(config, workspace, target, report)
        if dry_run:
            return report
        report.left = look_again(config, workspace, target)
        report.left += look_into_databases(workspace, target, dagster_home)
        if all(finding.severity != "error" for finding in report.left):
            num_rows = sum(action.num_rows for action in report.actions) + report.num_table_rows
            num_files = sum(action.kind in ("file", "picture") for action in report.actions)
            num_files += sum(report.originals.values())
            forgotten.finish(workspace, register, num_rows, num_files)
        return report


def _require_workspace(workspace: Workspace) -> None:
    """Refuse a mistyped root: forgotten there, everything would stay where it really lies."""
    root = workspace.root
    if not any((root / folder).is_dir() for folder in FOLDERS):
        found = "no folder of them" if root.is_dir() else "no such folder"
        raise DataError(
            f"Expected a workspace at {root}, with {', '.join(FOLDERS)}; found {found}. Correct "
            "workspace.root (or --config)."
        )


@contextmanager
def _alone_in(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace alone; who only looks at its lock for an instant is waited for.

    Raises:
        StageError: A stage is running.
    """
    lock, until = workspace.state / "locks" / FORGETTING_LOCK, time.monotonic() + _WAIT_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(
                    exclusive_lock(
                        lock, "the workspace (every stage that runs shares it)", wait=False
                    )
                )
                break
            except StageError:
                if time.monotonic() > until:
                    raise
                time.sleep(_WAIT_S / 20)
        yield


def _begin(
    workspace: Workspace, register: Forgotten, target: Target, delete_originals: bool
) -> Forgotten:
    """Record what is asked for now; what was asked before has its own entry, and its own flag."""
    register, asked = forgotten.with_key(register), target.asked
    entry = Entry(
        image_ids=tuple(sorted(asked.image_ids)),
        subjects=tuple(sorted(register.subject_hash(*subject) for subject in asked.subjects)),
        paths=forgotten.hashes_of(register, asked.paths),
        deletes_originals=delete_originals,
    )
    return forgotten.begin(workspace, entry, register)


def _report(
    config: PipelineConfig, workspace: Workspace, target: Target, resumed: bool
) -> ForgetReport:
    """Find everything that is to go."""
    shown = target.rows.height > 0 or resumed
    actions = find_actions(config, workspace, target, shown, target.partitions)
    if actions and not shown:
        # Rows of it are left though its own is gone: stages saw it, and may have drawn it.
        partitions = target.partitions | _partitions_of(workspace, actions)
        actions = find_actions(config, workspace, target, True, partitions)
    report = ForgetReport(
        len(target.image_ids),
        len({name for name, _ in target.subjects}),
        actions,
        target.rows.height,
        messages=list(target.messages),
        image_ids=target.image_ids,
    )
    _add_originals(workspace, target, report)
    if config.register_model.tracking_uri is not None:
        report.messages.append(
            "Reports with pictures of faces may lie among the artifacts of "
            f"{tracking_uri_of(workspace, config.register_model.tracking_uri)}, which are not "
            "in this workspace: delete the runs there, and run `mlflow gc`."
        )
    if target.deletable and workspace.truth.exists():
        report.messages.append(
            "The corpus is drawn: the stage synthesize draws what is missing of it again; it stays "
            "forgotten, in quarantine."
        )
    return report


def _add_originals(workspace: Workspace, target: Target, report: ForgetReport) -> None:
    """Find the target's files in corpora: only what holds its bytes is its, whatever the name."""
    raw = (workspace.root / "data" / "raw").resolve()
    for file in sorted({file_of(workspace, path) for path in target.paths}):
        if not file.is_file():
            continue
        try:
            image_id = hash_file(file)
        except OSError as error:
            report.messages.append(
                f"{workspace.relative(file)} cannot be read ({error.strerror}), so that nobody "
                "knows whether it is the photograph: it stays."
            )
            continue
        if image_id in target.image_ids:
            inside = file.parent.resolve().is_relative_to(raw)
            report.originals[file] = inside and image_id in target.deletable
        else:
            report.replaced.append(file)


def _ask_networks(
    config: PipelineConfig, workspace: Workspace, target: Target, report: ForgetReport
) -> None:
    """Find who learned from it; what does not answer is said, and stops nothing."""
    uri = tracking_uri_of(workspace, config.register_model.tracking_uri)
    unknown: list[str] = []
    try:
        report.models = models_trained_on(workspace, target.image_ids)
        report.versions, unknown = versions_trained_on(uri, target.image_ids)
    except (DataError, UnavailableError) as error:
        report.messages.append(
            f"Not every network could be asked whether it learned from it: {error} Then give this "
            "command what was forgotten again: it names them."
        )
    if unknown:
        report.messages.append(
            f"Registered versions that do not say what they learned from: {', '.join(unknown)}. "
            "They were registered before that was recorded; ask whoever trained them."
        )
    if silent := without_list(workspace):
        report.messages.append(
            f"Networks that do not say what they learned from: {', '.join(silent)}. They learned "
            "from drawn faces alone, came from elsewhere, or are older than the lists."
        )


def _partitions_of(workspace: Workspace, actions: list[Action]) -> frozenset[str]:
    """Return the partitions of the tables that still have rows of the target."""
    tables = workspace.tables
    found = [a.path.relative_to(tables) for a in actions if a.path.is_relative_to(tables)]
    return frozenset(Path(*path.parts[1:]).with_suffix("").as_posix() for path in found)


def _remove(workspace: Workspace, target: Target, report: ForgetReport, resumed: bool) -> None:
    """Remove what the report lists, the rows by which it is found again last."""
    releases = workspace.root / "outputs" / "release"
    for action in report.actions:
        if action.path.is_relative_to(releases):
            report.releases.add(releases / action.path.relative_to(releases).parts[0])
        if action.kind == "rows":
            remove_rows(action.path, people_kept(workspace, action.path, target))
        elif action.kind != "foreign":
            action.path.unlink(missing_ok=True)
    if resumed and releases.is_dir():  # killed between the rows and the checksums
        report.releases |= {folder for folder in releases.iterdir() if folder.is_dir()}
    for folder in sorted(report.releases):
        renew_checksums(folder)
    for file, goes in report.originals.items():
        # Compared again: another picture may have taken the name since.
        if goes and file.is_file() and hash_file(file) in target.deletable:
            file.unlink(missing_ok=True)
    for partition in sorted(target.partitions):
        _move_to_quarantine(workspace, partition, target)


def _move_to_quarantine(workspace: Workspace, partition: str, target: Target) -> None:
    """Put the files of the target into quarantine as forgotten; then take its images out.

    The tables then say what the next ingest would say: every input is in one of them.
    """
    ids, paths = list(target.image_ids), list(target.paths)
    has_images = partition in list_partitions(workspace, IMAGES)
    has_refused = partition in list_partitions(workspace, QUARANTINE)
    refused = read_table(workspace, QUARANTINE, [partition] if has_refused else [])
    images = read_table(workspace, IMAGES, [partition] if has_images else [])
    is_its = (pl.col("image_id").is_in(ids) | pl.col("path").is_in(paths)).fill_null(False)
    goes = images.filter(pl.col("image_id").is_in(ids))
    listed = {
        row["path"] if "name_not_utf8" in row["flags"] else escape_name(row["path"]): row["path"]
        for row in goes.iter_rows(named=True)
    }
    listed |= {path: path for path in refused.filter(is_its)["path"]}
    rows = [
        row for path, named in sorted(listed.items())
        if (row := _quarantined(workspace, partition, path, named, target)) is not None
    ]  # fmt: skip
    frame = pl.concat([quarantine_frame(rows), refused.filter(~is_its)])
    write_table(workspace, QUARANTINE, partition, frame)
    csv = workspace.stats / "quarantine" / f"{partition}.csv"
    write_text(csv, for_spreadsheets(frame.sort("path")))
    if has_images:
        left = images.filter(~pl.col("image_id").is_in(ids))
        write_table(workspace, IMAGES, partition, left)


def _quarantined(
    workspace: Workspace, partition: str, path: str, named: str, target: Target
) -> dict | None:
    """Return the row of a file as the next ingest writes it; None where it is no input of this."""
    file = file_of(workspace, named)
    if not file.is_file():  # a manifest goes on listing it
        return quarantine_row(path, partition, FORGOTTEN, DETAIL) if is_caf(partition) else None
    image_id = hash_file(file)
    if image_id not in target.image_ids:
        return None  # another picture has taken its name
    num_bytes = file.stat().st_size
    return quarantine_row(path, partition, FORGOTTEN, DETAIL, image_id, num_bytes)
