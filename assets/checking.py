"""From verdicts to asset checks: what the UI shows of them, and what they stop."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace
from resources.pipeline import PipelineResource

if TYPE_CHECKING:
    from agetf_pipeline.data.schemas import TableSpec
    from agetf_pipeline.quality.file_checks import Pictures
    from agetf_pipeline.quality.rule import Rule
    from agetf_pipeline.quality.verdict import SuiteResult

Over = Literal["ffhq", "caf", "all"]
Judge = Callable[[PipelineConfig, Workspace, str], "SuiteResult"]
"""Judges something, keeps the verdicts under the name it is given, and returns them."""


def suite_check(
    asset: str, name: str, description: str, judge: Judge, blocking: bool = True
) -> dg.AssetChecksDefinition:
    """Make an asset check of a suite.

    Args:
        asset: Name of the asset that is judged.
        name: Of the check.
        description: What is looked at, and what a failure means.
        judge: Judges it.
        blocking: Whether a critical expectation that fails stops what comes after; a warning never
            does.
    """

    @dg.asset_check(asset=asset, name=name, description=description, blocking=blocking)
    def check(pipeline: PipelineResource) -> dg.AssetCheckResult:
        config, workspace = pipeline.load()
        result = judge(config, workspace, f"{asset}/{name}")
        return check_result(result, workspace, f"{asset}/{name}")

    return check


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

    def judge(config: PipelineConfig, workspace: Workspace, name: str) -> "SuiteResult":
        return judge_table(config, workspace, name, table, over, also)

    return suite_check(
        asset,
        f"{table}_expectations",
        f"Great Expectations suite of the table `{table}`: every rule, how many rows break it, and "
        "some of those rows.",
        judge,
    )


def judge_table(
    config: PipelineConfig,
    workspace: Workspace,
    name: str,
    table: str,
    over: Over = "all",
    also: Callable[[PipelineConfig], list["Rule"]] | None = None,
) -> "SuiteResult":
    """Judge a table; the arguments are those of `table_check`, and the check's name."""
    from agetf_pipeline.data.schemas import TABLES
    from agetf_pipeline.quality.suites import check_table

    more = [] if also is None else also(config)
    chosen, absent = _partitions(workspace, TABLES[table], over)
    return check_table(workspace, table, chosen, more, name, absent)


def picture_check(
    asset: str, pictures: "Pictures", description: str, over: Over = "all"
) -> dg.AssetChecksDefinition:
    """Make the blocking check that opens a sample of the pictures that a table names.

    Args:
        asset: Name of the asset.
        pictures: Which pictures.
        description: What they are.
        over: Of which partitions of the table.
    """

    def judge(config: PipelineConfig, workspace: Workspace, name: str) -> "SuiteResult":
        from agetf_pipeline.data.corpora import still_on_disk
        from agetf_pipeline.data.schemas import TABLES
        from agetf_pipeline.quality.file_checks import check_pictures, table_of

        chosen, absent = _partitions(workspace, TABLES[table_of(pictures)], over)
        # A shard whose folder was removed is said by `caf_shards_on_disk`; it stops no other.
        chosen = still_on_disk(config, workspace, chosen)
        return check_pictures(workspace, config.quality, pictures, chosen, name, absent)

    text = (
        f"Opens a sample of {description}: decodable, of the size and the sha256 that the table "
        "says, not blank."
    )
    return suite_check(asset, f"{pictures}_on_disk", text, judge)


def network_check(asset: str, stage: str) -> dg.AssetChecksDefinition:
    """Make the blocking check of the weights that a stage leaves: readable, finite, not constant.

    Args:
        asset: Name of the asset.
        stage: Its stage.
    """

    def judge(config: PipelineConfig, workspace: Workspace, name: str) -> "SuiteResult":
        from agetf_pipeline.quality.file_checks import check_networks

        return check_networks(workspace, config.quality, stage, name)

    text = "Reads the weights: they can be read, are not empty, not NaN, not all the same."
    return suite_check(asset, "weights", text, judge)


def _partitions(workspace: Workspace, spec: "TableSpec", over: Over) -> tuple[list[str], bool]:
    """Return the partitions of a table that are written, and whether their corpus is absent."""
    from agetf_pipeline.data.tables import list_partitions
    from agetf_pipeline.quality.suites import is_absent

    written = list_partitions(workspace, spec)
    if over == "all":
        return written, False
    chosen = [p for p in written if (over == "ffhq") == (p == FFHQ_PARTITION)]
    return chosen, is_absent(workspace, chosen)


def check_result(
    result: "SuiteResult",
    workspace: Workspace,
    name: str,
    check: str | None = None,
) -> dg.AssetCheckResult:
    """Return a suite's verdicts as Dagster shows them.

    Args:
        result: The verdicts.
        workspace: The workspace.
        name: `<asset>/<check>`, as they were kept.
        check: The check's name, where one step gives the results of several.
    """
    return dg.AssetCheckResult(
        check_name=check,
        passed=result.passed,
        severity=dg.AssetCheckSeverity.ERROR if result.blocks else dg.AssetCheckSeverity.WARN,
        description=_summary(result),
        metadata=_metadata(result, workspace, name),
    )


def _summary(result: "SuiteResult") -> str:
    notes = " ".join(result.notes)
    if result.passed:
        held = f"All {len(result.verdicts)} expectations hold." if result.verdicts else ""
        return f"{held} {notes}".strip()
    failed = "; ".join(f"{v.description}: {v.found}" for v in result.failures)
    what = "Blocks what comes after" if result.blocks else "A person should look"
    return f"{what}. {failed}. {notes}".strip()


def _metadata(result: "SuiteResult", workspace: Workspace, name: str) -> Mapping[str, Any]:
    from agetf_pipeline.quality.data_docs import data_docs_folder

    verdicts = [
        {
            "expectation": verdict.description,
            "verdict": "holds" if verdict.passed else f"fails ({verdict.severity})",
            "rows": verdict.num_rows,
            "broken": verdict.num_broken,
            "allowed": f"{verdict.max_broken_fraction:.1%}",
            "found": verdict.found,
            "examples": ", ".join(example[:16] for example in verdict.examples),
        }
        for verdict in result.verdicts
    ]
    metadata: dict[str, Any] = {
        "rows": result.num_rows,
        "num_expectations": len(result.verdicts),
        "num_failing": len(result.failures),
        **{key: value for key, value in result.figures.items() if value is not None},
        "expectations": _table(verdicts),
    }
    for verdict in result.failures:
        if verdict.rows:
            metadata[f"rows_that_break_{verdict.name}"] = _table(verdict.rows)
    if result.notes:
        metadata["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in result.notes))
    page = data_docs_folder(workspace) / f"{name}.html"
    return metadata | {"data_docs": dg.MetadataValue.path(str(page))}


def _table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    columns = [dg.TableColumn(name) for name in (rows[0] if rows else {})]
    return dg.MetadataValue.table(
        [dg.TableRecord(row) for row in rows], dg.TableSchema(columns=columns)
    )
