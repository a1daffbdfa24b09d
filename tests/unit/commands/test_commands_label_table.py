"""`agetf check-labels`: verdicts, exit codes, what is printed and written."""

import json

import polars as pl
import pytest

from agetf_pipeline import cli
from agetf_pipeline.commands.label_table import check_labels

HEADER = "image_number,age_group,gender,race"


def good_rows(per_group: int = 100) -> list[str]:
    return [f"{n}.png,{n % 10},{('male', 'female')[n % 2]},White" for n in range(10 * per_group)]


def write(tmp_path, rows: list[str]):
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([HEADER, *rows, ""]))
    return path


def failed(result) -> set[str]:
    return {verdict.name for verdict in result.verdicts if not verdict.passed}


def test_good_labels_pass_and_are_written(tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["check-labels", str(write(tmp_path, good_rows())), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1,000 " in printed
    assert "all 10 expectations hold" in printed
    assert pl.read_csv(out / "groups.csv")["images"].to_list() == [100] * 10
    assert pl.read_csv(out / "anchors.csv")["effective_images"].sum() > 500
    assert pl.read_csv(out / "cross_table.csv")["images"].sum() == 1000
    assert json.loads((out / "expectations.json").read_text())["passed"] is True
    assert (out / "labels.png").read_bytes().startswith(b"\x89PNG")
    first = (out / "labels.png").read_bytes()
    check_labels(tmp_path / "labels.csv", out)
    assert (out / "labels.png").read_bytes() == first


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda rows: rows[:-1], "groups_not_rare"),
        (lambda rows: [row for row in rows if ",3," not in row], "every_group"),
        (
            lambda rows: rows + [f"{2000 + n},5,male,White" for n in range(1000)],
            "no_group_dominates",
        ),
        (lambda rows: [*rows, "70000,1,male,White"], "number_of_ffhq"),
        (lambda rows: rows + [f"{2000 + n},1,,White" for n in range(60)], "gender_known"),
        (lambda rows: rows + [f"{2000 + n},1,male," for n in range(60)], "race_known"),
        (lambda rows: rows + [f"{2000 + n},1,male,r{n}" for n in range(13)], "few_races"),
        (lambda rows: rows + [f"{2000 + n},,male,White" for n in range(60)], "age_known"),
    ],
)
def test_doubtful_labels_are_warned_of(tmp_path, change, rule):
    checked = check_labels(write(tmp_path, change(good_rows())))
    assert failed(checked.result) == {rule}
    assert not checked.result.blocks
    assert "a person should look" in checked.lines()[-1]


def test_labels_without_ages_block(tmp_path, capsys):
    rows = good_rows() + [f"{2000 + n},,male,White" for n in range(1001)]
    assert cli.main(["check-labels", str(write(tmp_path, rows))]) == 1
    assert "must not be used" in capsys.readouterr().out


def test_an_empty_file_blocks_and_a_bad_one_is_explained(tmp_path, capsys):
    assert cli.main(["check-labels", str(write(tmp_path, []))]) == 1
    assert cli.main(["check-labels", str(write(tmp_path, ["1.png,6-Mar,male,White"]))]) == 1
    assert "a date" in capsys.readouterr().err
