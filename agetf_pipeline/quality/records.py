"""Verdicts that outlive a run: kept beside the tables, and looked at again by whoever reads those.

A check stops what comes after it in its own run only. What another run may rely on is this record:
it names the files that were judged and their hashes, so that it speaks of those and of no others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import read_json, write_json
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.quality.data_docs import write_data_docs
from agetf_pipeline.quality.verdict import SuiteResult


@dataclass(frozen=True)
class Blocked:
    """A stored verdict that still stands against a file.

    Attributes:
        check: `<asset>/<check>`.
        reasons: The critical expectations that fail, with what was found.
    """

    check: str
    reasons: tuple[str, ...]


def record_path(workspace: Workspace, check: str) -> Path:
    """Return the file that keeps the verdicts of a check, `<asset>/<check>`."""
    return workspace.stats / "quality" / f"{check}.json"


def keep_result(
    workspace: Workspace, check: str, result: SuiteResult, subject: Iterable[Path]
) -> Path:
    """Keep the verdicts of a check and show them in the Data Docs.

    Args:
        workspace: The workspace.
        check: `<asset>/<check>`.
        result: The verdicts.
        subject: The files that were judged.

    Returns:
        The page of the Data Docs.
    """
    judged = {workspace.relative(path): hash_file(path) for path in subject if path.is_file()}
    write_json(record_path(workspace, check), {"subject": judged, **result.as_dict()})
    return write_data_docs(workspace, check)


def standing_blocks(workspace: Workspace, assets: Sequence[str]) -> list[Blocked]:
    """Return the blocking verdicts on what these assets wrote that still speak of its files.

    A verdict on files that have changed or gone since says nothing any more.
    """
    found = []
    for asset in assets:
        for path in sorted((workspace.stats / "quality" / asset).glob("*.json")):
            record = read_json(path)
            if record["blocks"] and _is_current(workspace, record["subject"]):
                reasons = tuple(
                    f"{item['description']}: {item['found']}"
                    for item in record["expectations"]
                    if not item["passed"] and item["severity"] == "critical"
                )
                found.append(Blocked(f"{asset}/{path.stem}", reasons))
    return found


def require_fit(workspace: Workspace, assets: Sequence[str]) -> None:
    """Refuse inputs that their last check found unfit to spread, whichever run it was part of.

    Args:
        workspace: The workspace.
        assets: Names of the assets that are about to be read.

    Raises:
        StageError: A verdict stands against the files as they are now.
    """
    blocked = standing_blocks(workspace, assets)
    if blocked:
        found = "\n".join(f"- {b.check}: {'; '.join(b.reasons)}" for b in blocked)
        raise StageError(
            "Expected inputs whose blocking checks hold; the last check of these files found:\n"
            f"{found}\nRepair what is behind them and materialise them again, or set "
            "quality.refuse_blocked=false to go on in spite of it."
        )


def _is_current(workspace: Workspace, subject: dict[str, str]) -> bool:
    files = {workspace.resolve(name): sha256 for name, sha256 in subject.items()}
    return bool(files) and all(
        path.is_file() and hash_file(path) == sha256 for path, sha256 in files.items()
    )
