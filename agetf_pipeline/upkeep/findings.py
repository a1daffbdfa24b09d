"""What `agetf doctor` and `agetf verify` find: one line a thing, with what to do about it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
"""error: something is broken or lost; warning: it may become so; note: worth knowing."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
COLUMNS = ("severity", "check", "where", "image_id", "expected", "found", "remedy")
_MARKS = {"error": "ERROR  ", "warning": "warning", "note": "note   "}
_NUM_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        severity: How bad it is.
        check: What looked, `<area>/<check>`, such as `tables/schema` or `machine/disk`.
        where: The file, table, link or part of the machine concerned; a path relative to the
            workspace where it lies in it.
        expected: In a few words, or a value.
        found: Likewise.
        remedy: What to do about it, a sentence.
        image_id: Of the image, where it is about one.
    """

    severity: Severity
    check: str
    where: str
    expected: str
    found: str
    remedy: str
    image_id: str | None = None


def is_clean(findings: Iterable[Finding]) -> bool:
    """Whether nothing is broken; warnings and notes are no errors."""
    return all(finding.severity != "error" for finding in findings)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings, the worst first, then by check and place."""
    return sorted(
        findings,
        key=lambda f: (SEVERITIES.index(f.severity), f.check, f.where, f.image_id or "", f.found),
    )


def lines_of(findings: Sequence[Finding]) -> list[str]:
    """Return findings as lines for a terminal: a few of each check, and how many more there are."""
    lines = []
    counts: Counter[tuple[Severity, str]] = Counter()
    for finding in ordered(findings):
        kind = finding.severity, finding.check
        counts[kind] += 1
        if counts[kind] <= _NUM_NAMED:
            lines.append(
                f"{_MARKS[finding.severity]}  {finding.check}: {finding.where}: expected "
                f"{finding.expected}; found {finding.found}. {finding.remedy}"
            )
    lines += [
        f"{_MARKS[severity]}  {check}: {count - _NUM_NAMED} more of these"
        for (severity, check), count in counts.items()
        if count > _NUM_NAMED
    ]
    return lines
