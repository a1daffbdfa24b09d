"""What was forgotten is in no table and among no files: by the register that keeps it out."""

import re
from datetime import datetime
from pathlib import Path

import polars as pl

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.forgotten import (
    Forgotten,
    read_forgotten,
    unfinished,
)
from agetf_pipeline.data.quarantine import FORGOTTEN
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE, TABLES, TRAINING_MANIFEST, TableSpec
from agetf_pipeline.data.tables import ALL_PARTITIONS
from agetf_pipeline.upkeep.forget_match import Target
from agetf_pipeline.upkeep.forget_plan import find_actions
from agetf_pipeline.upkeep.verify_survey import READ_ERRORS, Survey

VERIFIED = "verify.csv"
"""The list of what a verification found, among the stats: it may name what it found."""
_CLOCK_S = 1.0
"""The register keeps whole seconds."""
_HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def register_of(survey: Survey) -> Forgotten:
    """Return the register; an empty one where it is damaged, which the state says."""
    try:
        return read_forgotten(survey.workspace)
    except DataError:
        return Forgotten()


def is_older_than_forgetting(survey: Survey, report: Path) -> bool:
    """Whether something was forgotten since a stage wrote its report.

    What shows many faces goes with one that is forgotten, and tables lose rows, until the stage
    runs again.
    """
    try:
        ran_s = report.stat().st_mtime
        moments = [e.done_at or e.begun_at for e in register_of(survey).entries]
        return any(datetime.fromisoformat(m).timestamp() + _CLOCK_S > ran_s for m in moments if m)
    except (OSError, ValueError):
        return False


def verify_register(survey: Survey) -> None:
    """Check that the register can be read, and that every request came to its end."""
    path = survey.workspace.forgotten
    try:
        register = read_forgotten(survey.workspace)
    except DataError as error:
        found = str(error).partition("; found: ")[2].partition(". Restore")[0]
        survey.add("state/forgotten_register", path, "a readable register", found)
        return
    survey.count("state", forgotten=len(register.image_ids))
    if waiting := unfinished(register):
        survey.add("state/forgetting_unfinished", path, "no open request", f"{len(waiting)} open")


def verify_forgotten_rows(survey: Survey, partition: str) -> None:
    """Check that no table of a partition has a row of what was forgotten."""
    register = register_of(survey)
    if not register.entries:
        return
    for spec in TABLES.values():
        if "image_id" in spec.schema.names and spec is not TRAINING_MANIFEST:
            _check_table(survey, spec, partition, register)
    people = survey.rows(IMAGES, partition, ["image_id", "subject"])
    if people is not None:
        for image_id, subject in people.drop_nulls().iter_rows():
            if register.has_subject(subject, partition):
                where = survey.path_of(IMAGES, partition)
                expected = "no image of a subject that was forgotten"
                survey.add("links/forgotten", where, expected, "one", image_id)


def verify_forgotten_manifest(survey: Survey) -> None:
    """Check that training reads nothing of what was forgotten."""
    register = register_of(survey)
    if register.entries:
        _check_table(survey, TRAINING_MANIFEST, ALL_PARTITIONS, register)


def _check_table(survey: Survey, spec: TableSpec, partition: str, register: Forgotten) -> None:
    columns = ["image_id", "reason"] if spec is QUARANTINE else ["image_id"]
    where = survey.path_of(spec, partition)
    for rows in survey.slices(spec, partition, columns):
        found = rows.filter(pl.col("image_id").is_in(list(register.image_ids)))
        if spec is QUARANTINE:
            found = found.filter(pl.col("reason") != FORGOTTEN)
        for image_id in sorted(set(found["image_id"].to_list())):
            survey.add("links/forgotten", where, "no row of what was forgotten", "one", image_id)


def verify_forgotten_files(survey: Survey) -> None:
    """Look into every file for what was forgotten, as `agetf forget` does when it looks again.

    Copies of the photographs under any name, and texts and tables that hold their hashes, mlruns
    included. Names of people cannot be looked for: the register does not hold them.
    """
    image_ids = register_of(survey).image_ids
    if survey.quick or not image_ids or survey.is_at_work(None):
        return
    target = Target(image_ids, frozenset(), frozenset(), pl.DataFrame(), frozenset())
    try:
        actions = find_actions(survey.config, survey.workspace, target, False, frozenset())
    except READ_ERRORS as error:
        expected = "a search for what was forgotten, to its end"
        survey.add("state/not_verified", "files", expected, str(error))
        return
    root = survey.workspace.root.resolve()
    said = {finding.where for finding in survey.findings if finding.check == "files/forgotten"}
    for action in actions:
        path = action.path
        if path.is_relative_to(root):
            path = survey.workspace.root / path.relative_to(root)
        by_links = "links" in survey.areas and path.is_relative_to(survey.workspace.tables)
        if by_links or path == survey.workspace.stats / VERIFIED or survey.name_of(path) in said:
            continue
        found = f"{action.num_rows} rows of it" if action.kind == "rows" else "one"
        image_id = forgotten_in(path.name, image_ids)
        survey.add("files/forgotten", path, "nothing of what was forgotten", found, image_id)


def forgotten_in(name: str, image_ids: frozenset[str]) -> str | None:
    """Return the forgotten image whose id a file's name holds; None where it holds none."""
    if not image_ids:
        return None
    return next((found for found in _HASH.findall(name) if found in image_ids), None)
