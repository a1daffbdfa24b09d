"""What came of a check: a verdict per expectation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from agetf_pipeline.quality.rule import Severity


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
        rows: The same rows: their key, and the columns that the rule reads, as text.
        found: What was found, in words, where counts alone do not say it.
    """

    name: str
    description: str
    severity: Severity
    passed: bool
    num_rows: int
    num_broken: int
    max_broken_fraction: float = 0.0
    examples: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    found: str = ""


@dataclass(frozen=True)
class SuiteResult:
    """The verdicts on one subject.

    Attributes:
        table: Name of the table, or of whatever else was judged.
        num_rows: Rows of it, of whichever kind.
        verdicts: One per expectation.
        figures: Measured beside them; null where one could not be computed.
        notes: What a person should know beside the verdicts.
    """

    table: str
    num_rows: int
    verdicts: tuple[Verdict, ...]
    figures: Mapping[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every expectation holds."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def blocks(self) -> bool:
        """Whether a critical expectation fails: what comes after must not run."""
        return any(not v.passed and v.severity == "critical" for v in self.verdicts)

    @property
    def failures(self) -> list[Verdict]:
        """Return the verdicts that do not hold."""
        return [verdict for verdict in self.verdicts if not verdict.passed]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-compatible values."""
        return {
            "table": self.table,
            "num_rows": self.num_rows,
            "passed": self.passed,
            "blocks": self.blocks,
            "figures": dict(self.figures),
            "notes": list(self.notes),
            "expectations": [asdict(verdict) for verdict in self.verdicts],
        }


def statement(
    name: str, description: str, passed: bool, found: str, severity: Severity = "warning"
) -> Verdict:
    """Return the verdict on a statement that is true or not, rather than on rows."""
    return Verdict(name, description, severity, passed, 1, int(not passed), found=found)
