"""Files of labels: both layouts become one table, and what is wrong is named with its line."""

import polars as pl
import pytest

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.data.ffhq_aging import LABEL_COLUMNS
from agetf_pipeline.data.label_statistics import anchor_support, label_statistics
from agetf_pipeline.data.label_table import SCHEMA, read_label_table

HEADER = "image_number,age_group,gender,race"


def write(tmp_path, *rows: str, header: str = HEADER, encoding: str = "utf-8"):
    path = tmp_path / "labels.csv"
    path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return path


def test_a_relabelling_is_read(tmp_path):
    table = read_label_table(
        write(
            tmp_path,
            "00002.png,9,male,Black",
            "00000/00001.png,0,female,White",
            "12,3-6,,-1",
            "00003.png,,male,Asian",
            encoding="utf-8-sig",
        )
    )
    assert table.layout == "relabelling"
    assert table.frame.schema == pl.Schema(SCHEMA)
    assert table.frame.select("image_number", "age_group", "gender", "race").rows() == [
        (1, "0-2", "female", "White"),
        (2, "70-120", "male", "Black"),
        (3, None, "male", "Asian"),
        (12, "3-6", None, None),
    ]
    assert table.frame["age_group_confidence"].null_count() == 4


def test_the_datasets_own_layout_is_read(tmp_path):
    row = "7,3-6,0.9,female,1,-1,2.5,-1.0,3,-1,None"
    table = read_label_table(write(tmp_path, row, header=",".join(LABEL_COLUMNS)))
    assert table.layout == "ffhq_aging"
    assert table.frame.schema == pl.Schema(SCHEMA)
    label = table.frame.row(0, named=True)
    assert (label["image_number"], label["age_group"], label["glasses"]) == (7, "3-6", "None")
    assert (label["head_pitch"], label["head_roll"], label["race"]) == (None, 2.5, None)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["1.png,6-Mar,male,White"], r"line 2 of .*'6-Mar', a date"),
        (["1.png,2,male,White", "2.png,2026-10-14,male,White"], "line 3 of .*a date"),
        (["1.png,45357,male,White"], "a date"),
        (["1.png,2,male,White", "2.png,10,male,White"], "0 to 9, or one of 0-2.*line 3.*'10'"),
        (["1.png,1.0,male,White"], "column age_group"),
        (["one.png,1,male,White"], "a number such as 00012.png"),
        (["-1,1,male,White"], "column image_number"),
        (["99999999999.png,1,male,White"], "column image_number"),
        (["9999999999.png,1,male,White"], "column image_number"),
        (["1.png,1,man,White"], "one of male, female"),
        (["1.png,1,male"], "Expected 4 values"),
        (["1.png,1,male,White,more"], "Expected 4 values"),
        (["1.png,1,male,White", "2.png,1,male,White", "01.png,2,male,White"], "in lines 2, 4"),
        (['1.png,1,male,"White'], "Expected a CSV file"),
    ],
)
def test_what_a_relabelling_does_not_hold_is_refused(tmp_path, rows, said):
    with pytest.raises(DataError, match=said):
        read_label_table(write(tmp_path, *rows))


def test_further_bad_lines_are_listed(tmp_path):
    rows = [f"{n}.png,1{n},male,White" for n in range(9)]
    with pytest.raises(DataError, match=r"line 2 .*lines 3, 4, 5, 6, 7 and 3 more\)"):
        read_label_table(write(tmp_path, *rows))


def test_wrong_columns_are_listed(tmp_path):
    with pytest.raises(DataError, match=r"missing race.*found image_number,age_group,gender,group"):
        read_label_table(write(tmp_path, header="image_number,age_group,gender,group"))
    with pytest.raises(DataError, match="semicolons"):
        read_label_table(write(tmp_path, header=HEADER.replace(",", ";")))
    with pytest.raises(DataError, match="no line"):
        read_label_table(write(tmp_path, header=""))
    with pytest.raises(DataError, match="found nothing"):
        read_label_table(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="UTF-8"):
        read_label_table(write(tmp_path, "1.png,1,male,Créole", encoding="latin-1"))


def test_counts(tmp_path):
    rows = ["0,5,female,White", "1,5,male,Asian", "2,5,male,White", "3,0,male,", "4,,female,White"]
    statistics = label_statistics(read_label_table(write(tmp_path, *rows)).frame)
    groups = {row["age_group"]: row for row in statistics.groups.iter_rows(named=True)}
    assert list(groups) == [*AGE_GROUPS, "unknown"]
    assert groups["20-29"] == {
        "age_group": "20-29", "images": 3, "share": 0.6, "gender_female": 1, "gender_male": 2,
        "race_Asian": 1, "race_White": 2, "race_unknown": 0,
    }  # fmt: skip
    assert (groups["0-2"]["race_unknown"], groups["unknown"]["images"]) == (1, 1)
    assert groups["70-120"]["images"] == 0
    assert statistics.cross["images"].sum() == statistics.num_images == 5
    assert statistics.cross.row(0) == ("0-2", "male", "unknown", 1, 0.2)


def test_the_support_of_the_anchors():
    ages = pl.Series(["0-2", "7-9", "10-14"] + ["50-69"] * 10 + ["70-120"] * 31)
    rows = {row["anchor_years"]: row for row in anchor_support(ages).iter_rows(named=True)}
    assert rows[5]["certain_images"] == rows[5]["effective_images"] == 2  # 10-14 begins at its end
    assert rows[15]["effective_images"] == 1
    assert rows[55]["effective_images"] == 5  # half of the twenty years of 50-69
    assert (rows[55]["certain_images"], rows[55]["possible_images"]) == (0, 10)
    assert rows[85]["effective_images"] == 10  # ten of the 31 years from 70 to 101
    assert [age for age, row in rows.items() if row["extrapolated"]] == [85, 95]


def test_a_table_without_rows_counts_nothing(tmp_path):
    statistics = label_statistics(read_label_table(write(tmp_path)).frame)
    assert statistics.num_images == 0
    assert statistics.groups["images"].sum() == 0
    assert statistics.anchors["effective_images"].sum() == 0
