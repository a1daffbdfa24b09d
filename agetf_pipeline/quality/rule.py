"""What a rule on the rows of a table is, and counting the rows that break it."""

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
        whole: Whether rows are compared with one another: then the columns that the rule reads
            are in memory for all rows at once, where otherwise a slice is.
    """

    name: str
    description: str
    broken: pl.Expr
    severity: Severity = "critical"
    max_broken_fraction: float = 0.0
    applies: pl.Expr | None = None
    whole: bool = False

    def columns(self) -> list[str]:
        """Return the columns that the rule reads."""
        read = [] if self.applies is None else self.applies.meta.root_names()
        return list(dict.fromkeys([*self.broken.meta.root_names(), *read]))


@dataclass(frozen=True)
class Counted:
    """What a rule found.

    Attributes:
        num_rows: Rows counted.
        num_broken: Rows that break it.
        rows: Up to five of those: their key, then the columns that the rule reads, as text.
    """

    num_rows: int
    num_broken: int
    rows: list[dict[str, str]]

    @property
    def fraction(self) -> float:
        """Share of the counted rows that break the rule; 0 where none was counted."""
        return self.num_broken / self.num_rows if self.num_rows else 0.0

    def plus(self, other: "Counted") -> "Counted":
        """Return what was found of these rows and of others that come after them."""
        return Counted(
            self.num_rows + other.num_rows,
            self.num_broken + other.num_broken,
            [*self.rows, *other.rows][:_MAX_EXAMPLES],
        )


_MAX_EXAMPLES = 5
_MAX_CHARACTERS = 120


def count_broken(rule: Rule, frame: pl.DataFrame) -> Counted:
    """Count the rows that break a rule, and keep some of them for a person to look at."""
    rows = frame if rule.applies is None else frame.filter(rule.applies)
    broken = rows.filter(rule.broken.fill_null(False))
    key = "image_id" if "image_id" in frame.columns else frame.columns[0]
    shown = list(dict.fromkeys([key, *rule.broken.meta.root_names()]))
    return Counted(
        rows.height,
        broken.height,
        [
            {name: _spell(row[name]) for name in shown}
            for row in broken.head(_MAX_EXAMPLES).iter_rows(named=True)
        ],
    )


def _spell(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 3]}..."
