"""Verdicts that outlive a run: what still stands, who refuses it, and how a person reads it."""

import re

import pytest

from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.quality.data_docs import data_docs_folder
from agetf_pipeline.quality.records import keep_result, require_fit, standing_blocks
from agetf_pipeline.quality.verdict import SuiteResult, Verdict, statement


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    (tmp_path / "t.parquet").write_bytes(b"rows")
    return Workspace(tmp_path)


def keep(workspace: Workspace, passed: bool = False, severity="critical", check="a/c"):
    rows = [] if passed else [{"image_id": "x<y", "age_years": "130"}]
    verdict = Verdict("age_in_range", "Ages lie in 0-120 years", severity, passed, 9, len(rows),
                      rows=rows, found=f"{len(rows)} of 9 rows break it")  # fmt: skip
    result = SuiteResult("t", 9, (verdict,), {"mean": 3.5, "unknown": None}, ("A note.",))
    return keep_result(workspace, check, result, [workspace.root / "t.parquet"])


def test_a_blocking_verdict_stands_for_a_later_run(workspace):
    keep(workspace)
    (blocked,) = standing_blocks(workspace, ["a", "b"])
    assert blocked.check == "a/c"
    with pytest.raises(StageError, match="Ages lie in 0-120 years: 1 of 9 rows") as refused:
        require_fit(workspace, ["a"])
    assert "quality.refuse_blocked" in str(refused.value)
    require_fit(workspace, ["b"])


def test_it_stands_no_longer_when_the_file_has_changed_or_gone(workspace):
    keep(workspace)
    (workspace.root / "t.parquet").write_bytes(b"repaired")
    assert not standing_blocks(workspace, ["a"])
    (workspace.root / "t.parquet").unlink()
    assert not standing_blocks(workspace, ["a"])


@pytest.mark.parametrize("how", [{"passed": True}, {"severity": "warning"}])
def test_what_holds_or_warns_stops_nobody(workspace, how):
    keep(workspace, **how)
    require_fit(workspace, ["a"])


def test_a_later_verdict_replaces_an_earlier_one(workspace):
    keep(workspace)
    keep(workspace, passed=True)
    require_fit(workspace, ["a"])


def test_data_docs_show_every_check_without_scripts_or_addresses(workspace):
    page = keep(workspace)
    keep(workspace, passed=True, check="b/d")
    index = data_docs_folder(workspace) / "index.html"
    text, listed = page.read_text(), index.read_text()
    assert "1 of 9 rows break it" in text
    assert "x&lt;y" in text
    assert "A note." in text
    assert "not measured" in text
    for link in re.findall(r'href="([^"]+)"', listed):
        assert (index.parent / link).is_file()
    assert listed.count("<tr>") == 3
    for html in (text, listed):
        assert "<script" not in html
        assert not re.search(r"https?://|//[a-z]", html)


def test_the_same_verdicts_give_the_same_bytes(workspace):
    first = keep(workspace).read_bytes()
    assert keep(workspace).read_bytes() == first


def test_a_statement_counts_as_one_row():
    verdict = statement("champion", "It is the champion", False, "worse")
    assert (verdict.num_rows, verdict.num_broken, verdict.severity) == (1, 1, "warning")
