"""Writes the checks into docs/verify.md: `python -m agetf_pipeline.upkeep.verify_describe`."""

from pathlib import Path

from agetf_pipeline.upkeep.verify_checks import CHECKS, NOT_LINKS, check_of

_BEGIN, _END = "<!-- checks: begin -->", "<!-- checks: end -->"


def check_names() -> list[str]:
    """Return the names of all checks, in the order of the page."""
    from agetf_pipeline.enhance.findings import ERRORS, NOTES

    audit = [f"links/enhanced_{kind}" for kind in (*ERRORS, *NOTES) if kind not in NOT_LINKS]
    first = [name for name in CHECKS if name.startswith(("tables/", "links/"))]
    return [*first, *audit, *(name for name in CHECKS if name not in first)]


def describe(page: str) -> str:
    """Return the page with its table of checks written anew."""
    head, _, rest = page.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    rows = ["| check | severity | what is wrong when it fires | what to do |", "|---|---|---|---|"]
    for name in check_names():
        check = check_of(name)
        remedy = check.remedy.replace("{stage}", "that made it")
        rows.append(f"| `{name}` | {check.severity} | {check.wrong} | {remedy} |")
    return "\n".join([head + _BEGIN, *rows, _END + tail])


if __name__ == "__main__":
    target = Path(__file__).resolve().parents[2] / "docs" / "verify.md"
    target.write_text(describe(target.read_text(encoding="utf-8")), encoding="utf-8")
