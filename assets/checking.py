"""From an expectation suite to an asset check."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import dagster as dg

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import FFHQ_PARTITION
from resources.pipeline import PipelineResource

if TYPE_CHECKING:
    from agetf_pipeline.quality.rule import Rule

Over = Literal["ffhq", "caf", "all"]


def table_check(
    asset: str,
    table: str,
    over: Over = "all",
    also: Callable[[PipelineConfig], list["Rule"]] | None = None,
) -> dg.AssetChecksDefinition:
    """Make the blocking check of a table: its suite, with the rows that break each expectation.

    A critical expectation that fails blocks what comes after; a warning does not.

    Args:
        asset: Name of the asset that writes the table.
        table: The table's name.
        over: Which of its partitions the asset writes.
        also: The rules that a config adds to the table's own.
    """

    @dg.asset_check(
        asset=asset,
        name=f"{table}_expectations",
        description=f"Great Expectations suite of the table '{table}'.",
        blocking=True,
    )
    def check(pipeline: PipelineResource) -> dg.AssetCheckResult:
        from agetf_pipeline.data.schemas import TABLES
        from agetf_pipeline.data.tables import list_partitions
        from agetf_pipeline.quality.suites import check_table

        config, workspace = pipeline.load()
        partitions = [
            partition
            for partition in list_partitions(workspace, TABLES[table])
            if over == "all" or (over == "ffhq") == (partition == FFHQ_PARTITION)
        ]
        more = [] if also is None else also(config)
        result = check_table(workspace, table, partitions, more)
        records = [
            dg.TableRecord(
                {
                    "expectation": verdict.description,
                    "verdict": "holds" if verdict.passed else f"fails ({verdict.severity})",
                    "rows": verdict.num_rows,
                    "broken": verdict.num_broken,
                    "allowed": f"{verdict.max_broken_fraction:.1%}",
                    "examples": ", ".join(example[:16] for example in verdict.examples),
                }
            )
            for verdict in result.verdicts
        ]
        return dg.AssetCheckResult(
            passed=result.passed,
            severity=dg.AssetCheckSeverity.ERROR if result.blocks else dg.AssetCheckSeverity.WARN,
            metadata={
                "rows": result.num_rows,
                "partitions": len(partitions),
                "expectations": dg.MetadataValue.table(records=records),
            },
        )

    return check
