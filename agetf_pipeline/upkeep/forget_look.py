"""The second look: what is left of somebody after everything was removed, and where else to look.

It asks the disk again, and nothing that the removal had in mind.
"""

from pathlib import Path

import polars as pl

from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import list_partitions, table_path
from agetf_pipeline.upkeep.findings import Finding, Severity
from agetf_pipeline.upkeep.forget_match import Target
from agetf_pipeline.upkeep.forget_plan import Action, find_actions, holds_any


def look_again(config: PipelineConfig, workspace: Workspace, target: Target) -> list[Finding]:
    """Return what is left of the target, in files that were made of the corpora."""
    actions = find_actions(config, workspace, target, False, frozenset())
    findings = [_left(workspace, action) for action in actions]
    for partition in list_partitions(workspace, IMAGES):
        path = table_path(workspace, IMAGES, partition)
        found = pl.scan_parquet(path).filter(pl.col("image_id").is_in(list(target.image_ids)))
        if num := found.select(pl.len()).collect().item():
            where = workspace.relative(path)
            findings.append(
                Finding("error", "forget/left", where, "no row of it", f"{num}", "Run this again.")
            )
    # Without its manifest nobody knows which originals of a shard are theirs; what is read later
    # stays out, since the register has the name.
    severity: Severity = "error" if target.deletable else "warning"
    findings += [
        Finding(
            severity, "forget/manifest", where, "a manifest, to look for the person in it", why,
            "Mend it and run this again: originals of theirs may lie there.",
        )
        for where, why in target.unread
    ]  # fmt: skip
    return findings


def look_into_databases(
    workspace: Workspace, target: Target, dagster_home: Path | None
) -> list[Finding]:
    """Return databases that name the target: MLflow and Dagster alone may change theirs.

    Raises:
        DataError: One cannot be read.
    """
    remedies = dict.fromkeys(
        workspace.root.glob("*.db"), "Delete the run in MLflow, then run `mlflow gc`."
    )
    if dagster_home is not None:
        how = "Wipe runs and assets in Dagster: docs/forgetting.md says how."
        remedies |= dict.fromkeys(dagster_home.rglob("*.db*"), how)
    # Dagster shows 16 digits of a hash.
    words = [*(image_id[:16] for image_id in target.image_ids), *target.literals]
    encoded = [word.encode("utf-8", "surrogateescape") for word in words]
    findings = []
    for path, remedy in sorted(remedies.items()):
        try:
            named = holds_any(path, encoded)
        except OSError as error:
            raise DataError(
                f"Expected to read {path}; found: {error}. Grant the right to read it."
            ) from error
        if named:
            where, found = workspace.relative(path), "its hash or path"
            findings.append(
                Finding("warning", "forget/database", where, "no mention of it", found, remedy)
            )
    return findings


def _left(workspace: Workspace, action: Action) -> Finding:
    where = workspace.relative(action.path)
    if action.kind == "foreign":
        found, remedy = (
            "a copy outside of the workspace, reached through a link",
            "Delete it, or take the link away, and run this again.",
        )
    else:
        found = f"{action.num_rows} rows" if action.kind == "rows" else "the file"
        remedy = "Run this again; if it stays, delete the file."
    return Finding("error", "forget/left", where, "nothing of it", found, remedy)
