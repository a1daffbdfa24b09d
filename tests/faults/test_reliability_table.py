"""docs/reliability.md: every row names tests that exist and run; no test of a fault is left out."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "reliability.md"
_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def rows() -> list[list[str]]:
    """The cells of every row of every table of the page, without headings."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if not set("".join(row)) <= set("-: |") and row[-1] != "Test"]


def functions(path: Path) -> dict[str, ast.FunctionDef]:
    return {
        node.name: node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith(("test_", "check_"))
    }


def named_tests() -> list[tuple[str, str]]:
    return [(path, name) for row in rows() for path, name in _NAMED.findall(row[-1])]


def test_every_row_says_the_fault_the_promise_and_the_test():
    assert len(rows()) > 40
    for row in rows():
        assert len(row) == 3, row
        assert all(row), row
        assert _NAMED.search(row[-1]), row


@pytest.mark.parametrize(("path", "name"), sorted(set(named_tests())))
def test_a_named_test_exists_and_is_not_skipped(path, name):
    file = REPOSITORY / path
    found = functions(file)
    if name:
        assert name in found, f"{path} has no {name}"
    chosen = [found[name]] if name else list(found.values())
    assert chosen
    for function in chosen:
        marks = [ast.unparse(decorator) for decorator in function.decorator_list]
        assert not [mark for mark in marks if ".skip(" in mark or "xfail" in mark], (path, marks)
        assert all("reason=" in mark for mark in marks if ".skipif" in mark), (path, marks)


def test_no_test_of_a_fault_is_left_out_of_the_table():
    files = {path for path, _ in named_tests()}
    there = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "tests" / "faults").glob("test_*.py")
    }
    assert there - files == {"tests/faults/test_reliability_table.py"}
