"""The reports of the stages: readable, and what they name still what the stage wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agetf_pipeline.core.files import read_json
from agetf_pipeline.core.hashing import hash_files
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.work import StageReport
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.stages.names import STAGE_SUMMARIES
from agetf_pipeline.upkeep.verify_forgotten import is_older_than_forgetting
from agetf_pipeline.upkeep.verify_survey import Survey, is_partition

_ABSENT = "absent"
_HASHED_BY_LINKS = ("data/processed/",)
"""Folders of pictures that the links hash one by one, whatever lies beside them is an orphan."""
_PICTURES = (*_HASHED_BY_LINKS, "data/raw/", "data/truth/")
"""Folders of pictures, which a quick look leaves out. Those of a drawn corpus hold lists, too, and
pictures that no table knows."""


def verify_reports(survey: Survey) -> None:
    """Check every report of a stage that ran, and hash its outputs again."""
    folder = survey.workspace.stats / "stages"
    files = sorted(path for path in folder.rglob("[!.]*.json") if path.is_file())
    with Progress("verify reports", len(files)) as progress:
        for path in files:
            stage, _, partition = path.relative_to(folder).with_suffix("").as_posix().partition("/")
            _verify_report(survey, path, stage, partition or None)
            progress.advance()


def _verify_report(survey: Survey, path: Path, stage: str, partition: str | None) -> None:
    if stage not in STAGE_SUMMARIES or (partition is not None and not is_partition(partition)):
        survey.add("files/foreign", path, "the report of a stage", "another file")
        return
    if partition is not None and not survey.wants(partition):
        return
    try:
        stored: dict[str, Any] = read_json(path)
        hashes: dict[str, str] = stored.pop("_output_hashes", {})
        outputs = dict(StageReport(**stored).outputs)
        known = {name: (place, hashes[name]) for name, place in outputs.items() if name in hashes}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        survey.add("files/report", path, f"the report of {stage}", str(error), stage=stage)
        return
    survey.count("files", reports=1)
    busy = survey.is_at_work(None, stage) if partition is None else survey.is_at_work(partition)
    if not busy:
        _verify_outputs(survey, stage, known, is_older_than_forgetting(survey, path))


def _verify_outputs(
    survey: Survey, stage: str, known: Mapping[str, tuple[str, str]], outdated: bool
) -> None:
    for name, (place, expected) in sorted(known.items()):
        path = survey.workspace.resolve(place)
        if expected == _ABSENT or _is_left_to_links(survey, place, path):
            continue
        found = output_hash(survey.workspace, path)
        survey.count("files", outputs=1)
        told = "nothing" if found == _ABSENT else "other content"
        if found != expected and outdated and not place.startswith("models/"):
            expects = f"{name} of {stage}"
            survey.add("files/since_forgetting", path, expects, told, stage=stage)
        elif found == _ABSENT and _is_of_gone_partition(survey, name):
            expected = f"{name} of {stage}"
            survey.add("files/of_gone_partition", path, expected, told, stage=stage)
        elif found == _ABSENT:
            survey.add("files/output_missing", path, f"{name} of {stage}", told, stage=stage)
        elif found != expected:
            check = "models/changed" if place.startswith("models/") else "files/output_changed"
            survey.add(check, path, f"{name} as {stage} wrote it", told, stage=stage)


def _is_of_gone_partition(survey: Survey, name: str) -> bool:
    """Whether an output is named for a shard (`labels/caf/one`) that no table and no folder has."""
    partition = "/".join(name.split("/")[-2:])
    known = Survey(survey.config, survey.workspace).known_partitions
    return partition.startswith("caf/") and is_partition(partition) and partition not in known()


def _is_left_to_links(survey: Survey, place: str, path: Path) -> bool:
    """Whether a folder of pictures is not hashed here: by the links, or not in a quick look."""
    left = survey.quick and f"{place}/".startswith(_PICTURES)
    left |= "links" in survey.areas and f"{place}/".startswith(_HASHED_BY_LINKS)
    return left and path.is_dir() and any(path.iterdir())


def output_hash(workspace: Workspace, path: Path) -> str:
    """Return the hash of a file or a folder as `core.work` records it; `absent`: nothing there."""
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        present = all(file.exists() for file in files) and bool(files)
        return hash_files(files, workspace.root) if present else _ABSENT
    except (OSError, ValueError) as error:
        return f"unreadable: {error}"
