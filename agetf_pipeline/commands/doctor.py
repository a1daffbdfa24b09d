"""`agetf doctor`: what is well and what is not, with what to do about it."""

import argparse
import json
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agetf_pipeline.upkeep.doctor import Section

_WIDTH = 100
_MAX_NAME = 20
_MARKS = {None: "ok     ", "note": "note   ", "warning": "warning", "error": "ERROR  "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument(
        "--quick", action="store_true", help="do not load PyTorch, which takes seconds"
    )
    parser.add_argument(
        "--dagster-home", type=Path,
        help="folder of the Dagster instance; default: DAGSTER_HOME, or that of `make ui`",
    )  # fmt: skip


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Look at everything and print it; return the exit code.

    0: no error. 1: errors.
    """
    from agetf_pipeline.upkeep.doctor import admit, examining, findings_of, is_well

    patient = admit(options.config, options.overrides, options.dagster_home, options.quick)
    sections: list[Section] = []
    for section in examining(patient):
        sections.append(section)
        if not options.json and section.items:
            say("\n".join([*([""] if len(sections) > 1 else []), *lines_of_section(section)]))
    well = is_well(sections)
    if options.json:
        areas = {
            section.name: [
                {"what": item.what, "value": item.value, "well": item.finding is None}
                for item in section.items
            ]
            for section in sections
        }
        findings = [asdict(finding) for finding in findings_of(sections)]
        say(json.dumps({"well": well, "areas": areas, "findings": findings}, indent=2))
    else:
        say(f"\n{verdict_of(sections)}")
    return 0 if well else 1


def lines_of_section(section: "Section") -> list[str]:
    """Return a section as lines for a terminal: aligned, a remedy below what is not well."""
    lines = [section.name]
    for item in section.items:
        finding = item.finding
        severity = None if finding is None else finding.severity
        head = f"  {_MARKS[severity]}  {item.what:<{_MAX_NAME}}  "
        body = item.value
        if finding is not None:
            body = f"expected {finding.expected}; found {finding.found}".rstrip(".")
        indent = " " * len(f"  {_MARKS[severity]}  {'':<{_MAX_NAME}}  ")
        lines += _wrapped(body, head, indent)
        if finding is not None:
            lines += _wrapped(finding.remedy, f"{indent}> ", f"{indent}  ")
    return lines


def verdict_of(sections: "Sequence[Section]") -> str:
    """Return the last line: whether all is well, and how much of it is not."""
    counts = Counter(
        None if item.finding is None else item.finding.severity
        for section in sections
        for item in section.items
    )
    told = [
        f"{counts[severity]} {severity}{'s' if counts[severity] != 1 else ''}"
        for severity in ("error", "warning", "note")
        if counts[severity]
    ]
    verdict = "not fit to work" if counts["error"] else "fit to work"
    return f"{verdict}: {', '.join([f'{counts[None]} things are well', *told])}"


def _wrapped(text: str, head: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=head, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    ) or [head.rstrip()]  # fmt: skip
