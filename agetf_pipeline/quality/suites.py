"""Expectation suites: Great Expectations judges the counts that the rules of a table gave.

Row rules run in Polars (`rules.py`), which takes seconds and little memory on millions of rows;
the suite runs on one row of aggregates per table, and its result is what a run keeps.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE, TABLES, TableSpec
from agetf_pipeline.data.streaming import compact, read_slices
from agetf_pipeline.data.tables import empty_frame, list_partitions, table_path
from agetf_pipeline.quality.loading import load_great_expectations
from agetf_pipeline.quality.records import keep_result
from agetf_pipeline.quality.rule import Counted, Rule, count_broken
from agetf_pipeline.quality.rules import MAY_BE_EMPTY, RULES
from agetf_pipeline.quality.verdict import SuiteResult, Verdict

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import (
        ExpectationSuiteValidationResult,
    )

_SLICE = 8192


def check_table(
    workspace: Workspace,
    table: str,
    partitions: list[str] | None = None,
    also: Sequence[Rule] = (),
    name: str | None = None,
    may_be_empty: bool = False,
) -> SuiteResult:
    """Judge a table of the workspace and keep the result in `stats/quality/<name>.json`.

    It is read a slice at a time; of rules that compare rows, the columns that they read, whole.

    Args:
        workspace: The workspace.
        table: Its name, one of `RULES`.
        partitions: Which of its partitions; None for all that are written.
        also: Rules beside the table's own, such as those that a config asks for.
        name: `<asset>/<check>`; None for `tables/<table>`.
        may_be_empty: Whether having no row is as it should be.

    Raises:
        DataError: A partition cannot be read, or does not have the schema's columns.
    """
    spec = TABLES[table]
    known = list_partitions(workspace, spec) if partitions is None else partitions
    rules = (*RULES[table], *also)
    num_rows, counted = _count_all(workspace, spec, known, rules)
    result = _result(table, num_rows, rules, counted, may_be_empty)
    files = [table_path(workspace, spec, partition) for partition in known]
    keep_result(workspace, name or f"tables/{table}", result, files)
    return result


def judge(
    table: str,
    frame: pl.DataFrame,
    rules: Sequence[Rule] | None = None,
    may_be_empty: bool = False,
) -> SuiteResult:
    """Judge rows of a table: its rules, and that there are rows at all.

    Args:
        table: Its name.
        frame: The rows.
        rules: The rules; None for those that `RULES` has for the table.
        may_be_empty: Whether having no row is as it should be; for tables in `MAY_BE_EMPTY` it is.
    """
    chosen = RULES[table] if rules is None else rules
    counted = [count_broken(rule, frame) for rule in chosen]
    return _result(table, frame.height, chosen, counted, may_be_empty)


def _count_all(
    workspace: Workspace, spec: TableSpec, partitions: Sequence[str], rules: Sequence[Rule]
) -> tuple[int, list[Counted]]:
    """Count the rows of partitions, and those that break each rule."""
    counted = [count_broken(rule, empty_frame(spec)) for rule in rules]
    num_rows = 0
    for partition in partitions:
        for rows in read_slices(workspace, spec, partition, _SLICE):
            num_rows += rows.height
            for place, rule in enumerate(rules):
                if not rule.whole:
                    counted[place] = counted[place].plus(count_broken(rule, rows))
    for place, rule in enumerate(rules):
        if rule.whole:
            columns = list(dict.fromkeys([_key_of(spec), *rule.columns()]))
            frames = [
                compact(rows)
                for partition in partitions
                for rows in read_slices(workspace, spec, partition, _SLICE, columns)
            ]
            every = pl.concat([empty_frame(spec).select(columns), *frames])
            counted[place] = count_broken(rule, every)
    return num_rows, counted


def _key_of(spec: TableSpec) -> str:
    return "image_id" if "image_id" in spec.schema.names else spec.key[0]


def _result(
    table: str,
    num_rows: int,
    chosen: Sequence[Rule],
    counted: list[Counted],
    may_be_empty: bool,
) -> SuiteResult:
    """Let the counts be judged."""
    if not may_be_empty and table not in MAY_BE_EMPTY:
        chosen = (_NOT_EMPTY, *chosen)
        counted = [Counted(1, int(num_rows == 0), []), *counted]
    outcome = _validate(
        table, {r.name: c.fraction for r, c in zip(chosen, counted, strict=True)}, chosen
    )
    verdicts = tuple(
        Verdict(
            rule.name,
            rule.description,
            rule.severity,
            outcome[rule.name],
            count.num_rows,
            count.num_broken,
            rule.max_broken_fraction,
            [row[next(iter(row))] for row in count.rows],
            count.rows,
            f"{count.num_broken} of {count.num_rows} rows break it",
        )
        for rule, count in zip(chosen, counted, strict=True)
    )
    return SuiteResult(table, num_rows, verdicts)


def is_absent(workspace: Workspace, partitions: Sequence[str]) -> bool:
    """Whether a corpus is not there at all: no file of it was taken, and none was refused."""
    read = (IMAGES, QUARANTINE)
    return not any(
        pl.scan_parquet(path).select(pl.len()).collect().item()
        for spec in read
        for partition in partitions
        if (path := table_path(workspace, spec, partition)).is_file()
    )


_NOT_EMPTY = Rule("has_rows", "The table has rows", pl.lit(False))


def _validate(table: str, fractions: dict[str, float], rules: Sequence[Rule]) -> dict[str, bool]:
    """Let Great Expectations judge one row of shares; return rule name to verdict."""
    gx = load_great_expectations()
    import pandas as pd
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset(table)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(
        {"dataframe": pd.DataFrame([fractions])}
    )
    from great_expectations.expectations.core.expect_column_max_to_be_between import (
        ExpectColumnMaxToBeBetween,
    )
    from great_expectations.expectations.metadata_types import FailureSeverity

    suite = gx.ExpectationSuite(
        name=table,
        expectations=[
            ExpectColumnMaxToBeBetween(
                column=rule.name,
                max_value=rule.max_broken_fraction,
                severity=FailureSeverity(rule.severity),
                meta={"rule": rule.name, "expects": rule.description},
            )
            for rule in rules
        ],
    )
    return _by_rule(batch.validate(suite))


def _by_rule(result: "ExpectationSuiteValidationResult") -> dict[str, bool]:
    document: dict[str, Any] = json.loads(json.dumps(result.to_json_dict()))
    return {
        item["expectation_config"]["kwargs"]["column"]: bool(item["success"])
        for item in document["results"]
    }
