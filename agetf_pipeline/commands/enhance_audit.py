"""`agetf enhance --audit`: every link of the enhanced shards re-verified; nothing is changed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import write_text
from agetf_pipeline.core.workspace import Workspace, is_caf, shard_of
from agetf_pipeline.data.corpora import discover_partitions
from agetf_pipeline.data.csv_files import for_spreadsheets
from agetf_pipeline.data.schemas import ENHANCED, IMAGES, TableSpec
from agetf_pipeline.data.tables import list_partitions, table_path
from agetf_pipeline.enhance.audit import audit_partition
from agetf_pipeline.enhance.findings import Finding

COLUMNS = ("severity", "kind", "image_id", "path", "expected", "found", "what_to_do")


@dataclass(frozen=True)
class AuditedShard:
    """What the audit of one shard gave."""

    partition: str
    num_images: int | None
    num_rows: int | None
    findings: tuple[Finding, ...]
    file: Path

    @property
    def num_errors(self) -> int:
        """Broken links."""
        return sum(finding.is_error for finding in self.findings)

    def lines(self) -> list[str]:
        """Return the shard's result as lines for a terminal."""
        verdict = "clean" if not self.num_errors else f"{self.num_errors} error(s)"
        images, rows = (
            "unknown" if number is None else f"{number:,}"
            for number in (self.num_images, self.num_rows)
        )
        head = f"{self.partition}: {verdict}; images {images}, rows {rows}"
        counts = Counter(finding.kind for finding in self.findings)
        kinds = {finding.kind: finding for finding in self.findings}
        width = max(map(len, kinds), default=0)
        table = [
            f"  {'ERROR' if kind.is_error else 'note '}  {name:<{width}}  {counts[name]:>7,}  "
            f"{kind.what_to_do}"
            for name, kind in kinds.items()
        ]
        return [head, *table, f"  written: {self.file}"]


def audit_shards(
    config: PipelineConfig, workspace: Workspace, partitions: Sequence[str] | None = None
) -> list[AuditedShard]:
    """Audit shards and write each one's findings to `stats/enhance_audit/<shard>.csv`.

    Args:
        config: Says where the originals are.
        workspace: The workspace.
        partitions: CAF partitions; None: every one that is on disk, or was once enhanced.

    Raises:
        StageError: A partition is not known, there is none, or the stage is at work on one.
    """
    known = known_shards(config, workspace)
    unknown = sorted(set(partitions or ()) - set(known))
    if unknown or not known:
        raise StageError(
            f"Expected CAF shards to audit, of {', '.join(known) or 'none: there is no shard'}; "
            f"found {', '.join(unknown) or 'nothing'}. Run ingest and enhance first, or correct "
            "--partition."
        )
    return [_audit(workspace, partition) for partition in partitions or known]


def known_shards(config: PipelineConfig, workspace: Workspace) -> list[str]:
    """Return the CAF partitions that have originals, rows or enhanced files, sorted."""
    folder = workspace.processed / "caf_enhanced"
    shards = {f"caf/{path.name}" for path in folder.glob("*") if path.is_dir()}
    named = {*shards, *list_partitions(workspace, ENHANCED), *list_partitions(workspace, IMAGES)}
    return sorted(p for p in {*named, *discover_partitions(config, workspace)} if is_caf(p))


def _audit(workspace: Workspace, partition: str) -> AuditedShard:
    findings = audit_partition(workspace, partition)
    file = workspace.stats / "enhance_audit" / f"{shard_of(partition)}.csv"
    write_text(file, for_spreadsheets(to_frame(findings)))
    num_images, num_rows = (_num_rows(workspace, spec, partition) for spec in (IMAGES, ENHANCED))
    return AuditedShard(partition, num_images, num_rows, tuple(findings), file)


def to_frame(findings: Sequence[Finding]) -> pl.DataFrame:
    """Return findings as a table with `COLUMNS`."""
    rows = [
        (
            "error" if finding.is_error else "note",
            finding.kind,
            finding.image_id,
            finding.path,
            finding.expected,
            finding.found,
            finding.what_to_do,
        )
        for finding in findings
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")


def _num_rows(workspace: Workspace, spec: TableSpec, partition: str) -> int | None:
    try:
        return pq.read_metadata(table_path(workspace, spec, partition)).num_rows
    except (OSError, ValueError):  # absent or damaged; the findings say so
        return None
