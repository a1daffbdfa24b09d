"""Walk a workspace and verify it: tables, links, files, models, state. It changes nothing.

What is damaged is a finding, never a crash: a part that cannot be verified says so, and the others
go on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.upkeep.findings import Finding, is_clean, ordered
from agetf_pipeline.upkeep.verify_checks import AREAS
from agetf_pipeline.upkeep.verify_files import TOPS, verify_files
from agetf_pipeline.upkeep.verify_links import verify_links
from agetf_pipeline.upkeep.verify_models import verify_models
from agetf_pipeline.upkeep.verify_state import verify_state
from agetf_pipeline.upkeep.verify_survey import Survey
from agetf_pipeline.upkeep.verify_tables import verify_tables

_VERIFIERS: dict[str, Callable[[Survey], None]] = {
    "tables": verify_tables,
    "links": verify_links,
    "files": verify_files,
    "models": verify_models,
    "state": verify_state,
}


@dataclass(frozen=True)
class Verification:
    """What a verification gave.

    Attributes:
        findings: Everything found, the worst first, each once.
        tallies: Area to what was looked at, by name.
    """

    findings: tuple[Finding, ...]
    tallies: Mapping[str, Mapping[str, int]]

    @property
    def is_clean(self) -> bool:
        """Whether there is no error."""
        return is_clean(self.findings)


def verify_workspace(
    config: PipelineConfig,
    workspace: Workspace,
    areas: Sequence[str] = AREAS,
    partitions: Sequence[str] | None = None,
    quick: bool = False,
    dagster_home: Path | None = None,
) -> Verification:
    """Verify a workspace.

    Memory grows with the number of images of the largest partition and of the training manifest
    (ids and paths), not with the files.

    Args:
        config: Says where the corpora lie, which experts there are and which weights are used.
        workspace: What is verified.
        areas: Of `AREAS`; they are verified in that order.
        partitions: Those that are looked at; None: all. Models and state have none.
        quick: Whether pictures are not hashed, and of large weights a part is read.
        dagster_home: Folder of a Dagster instance, whose SQLite files are looked at, too.

    Raises:
        DataError: There is no workspace, or nothing in it; or no such partition.
    """
    _require_workspace(workspace)
    survey = Survey(
        config,
        workspace,
        None if partitions is None else tuple(partitions),
        tuple(area for area in AREAS if area in areas),
        quick,
        dagster_home,
    )
    for area in survey.areas:
        try:
            _VERIFIERS[area](survey)
        except Exception as error:  # whatever lies there: the other areas are verified all the same
            found = f"{type(error).__name__}: {error}"
            survey.add("state/not_verified", area, "a verification to its end", found)
    tallies = {area: dict(survey.tallies[area]) for area in survey.areas}
    return Verification(tuple(ordered(dict.fromkeys(survey.findings))), tallies)


def unknown_partitions(
    config: PipelineConfig, workspace: Workspace, partitions: Sequence[str]
) -> list[str]:
    """Return those that no table and no folder of photographs has."""
    known = Survey(config, workspace).known_partitions()
    return sorted(set(partitions) - set(known))


def _require_workspace(workspace: Workspace) -> None:
    root = workspace.root
    if not root.is_dir() or not any((root / top).is_dir() for top in TOPS):
        found = "no folder of them" if root.is_dir() else "no such folder"
        raise DataError(
            f"Expected a workspace at {root}, with {', '.join(TOPS)}; found {found}. Correct "
            "workspace.root (or --config), or run the pipeline first."
        )
