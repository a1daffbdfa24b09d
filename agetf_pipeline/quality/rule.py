"""What a rule on the rows of a table is."""

from dataclasses import dataclass
from typing import Literal

import polars as pl

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Rule:
    """One rule on the rows of a table.

    Attributes:
        name: Short name, unique within the table.
        description: What is expected, for a person.
        broken: Expression that is true for rows that break it (null counts as not broken).
        severity: `critical` blocks what comes after; `warning` asks a person to look.
        max_broken_fraction: Share of rows that may break it.
        applies: Rows that are counted; None for all.
    """

    name: str
    description: str
    broken: pl.Expr
    severity: Severity = "critical"
    max_broken_fraction: float = 0.0
    applies: pl.Expr | None = None
