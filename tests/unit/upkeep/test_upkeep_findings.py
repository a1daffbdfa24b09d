"""Findings on a terminal: the worst first, none lost, long lists cut with their number said."""

from agetf_pipeline.upkeep.findings import Finding, is_clean, lines_of, ordered


def finding(severity, check="tables/schema", where="a") -> Finding:
    return Finding(severity, check, where, "this", "that", "Do it.")


def test_the_worst_comes_first_and_only_errors_are_unclean():
    mixed = [finding("note"), finding("error", where="b"), finding("warning")]
    assert [f.severity for f in ordered(mixed)] == ["error", "warning", "note"]
    assert not is_clean(mixed)
    assert is_clean([finding("note"), finding("warning")])


def test_of_many_alike_a_few_are_named_and_the_rest_counted():
    lines = lines_of([finding("error", where=f"row {i}") for i in range(12)] + [finding("note")])
    assert len(lines) == 5 + 1 + 1
    assert lines[0] == "ERROR    tables/schema: row 0: expected this; found that. Do it."
    assert "ERROR    tables/schema: 7 more of these" in lines
