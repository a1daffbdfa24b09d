"""Expectation suites: Great Expectations judges the counts that the rules of a table gave.

Row rules run in Polars (`rules.py`), which takes seconds and little memory on millions of rows;
the suite runs on one row of aggregates per table, and its result is what a run keeps.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from agetf_pipeline.core.files import write_json
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import TABLES
from agetf_pipeline.data.tables import list_partitions, read_table
from agetf_pipeline.quality.loading import load_great_expectations
from agetf_pipeline.quality.rule import Rule, Severity
from agetf_pipeline.quality.rules import RULES, count_broken

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import (
        ExpectationSuiteValidationResult,
    )


@dataclass(frozen=True)
class Verdict:
    """What came of one expectation.

    Attributes:
        name: The rule's name.
        description: What was expected.
        severity: Of a failure.
        passed: Whether the share of broken rows is within the limit.
        num_rows: Rows that were counted.
        num_broken: Rows that break the rule.
        max_broken_fraction: The limit.
        examples: Up to five rows that break it, by their key.
    """

    name: str
    description: str
    severity: Severity
    passed: bool
    num_rows: int
    num_broken: int
    max_broken_fraction: float
    examples: list[str]


@dataclass(frozen=True)
class SuiteResult:
    """The verdicts on one table."""

    table: str
    num_rows: int
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether every expectation holds."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def blocks(self) -> bool:
        """Whether a critical expectation fails: what comes after must not run."""
        return any(not v.passed and v.severity == "critical" for v in self.verdicts)


def check_table(
    workspace: Workspace,
    table: str,
    partitions: list[str] | None = None,
    also: Sequence[Rule] = (),
) -> SuiteResult:
    """Judge a table of the workspace and keep the result in `stats/quality/<table>.json`.

    Args:
        workspace: The workspace.
        table: Its name, one of `RULES`.
        partitions: Which of its partitions; None for all that are written.
        also: Rules beside the table's own, such as those that a config asks for.

    Raises:
        DataError: A partition cannot be read, or does not have the schema's columns.
    """
    spec = TABLES[table]
    known = list_partitions(workspace, spec) if partitions is None else partitions
    result = judge(table, read_table(workspace, spec, known), (*RULES[table], *also))
    write_json(
        workspace.stats / "quality" / f"{table}.json",
        {
            "table": table,
            "partitions": known,
            "num_rows": result.num_rows,
            "passed": result.passed,
            "blocks": result.blocks,
            "expectations": [vars(verdict) for verdict in result.verdicts],
        },
    )
    return result


def judge(table: str, frame: pl.DataFrame, rules: Sequence[Rule] | None = None) -> SuiteResult:
    """Judge rows of a table: its rules, and that there are rows at all.

    Args:
        table: Its name.
        frame: The rows.
        rules: The rules; None for those that `RULES` has for the table.
    """
    counted = [
        (_NOT_EMPTY, 1, int(frame.height == 0), []),
        *(
            (rule, *count_broken(rule, frame))
            for rule in (RULES[table] if rules is None else rules)
        ),
    ]
    fractions = {
        rule.name: num_broken / num_rows if num_rows else 0.0
        for rule, num_rows, num_broken, _ in counted
    }
    outcome = _validate(table, fractions, [rule for rule, *_ in counted])
    verdicts = tuple(
        Verdict(
            rule.name,
            rule.description,
            rule.severity,
            outcome[rule.name],
            num_rows,
            num_broken,
            rule.max_broken_fraction,
            examples,
        )
        for rule, num_rows, num_broken, examples in counted
    )
    return SuiteResult(table, frame.height, verdicts)


_NOT_EMPTY = Rule("has_rows", "The table has rows", pl.lit(False))


def _validate(table: str, fractions: dict[str, float], rules: list[Rule]) -> dict[str, bool]:
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
