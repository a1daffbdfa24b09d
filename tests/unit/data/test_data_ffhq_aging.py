"""The labels of FFHQ-Aging: what is read, and what is refused with its line."""

import pytest

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.ffhq_aging import (
    LABEL_COLUMNS,
    describe_coverage,
    image_number_of,
    read_labels,
)

GOOD = "7,3-6,0.9,female,1,-1,2.5,-1.0,3,-1,None"


def write(tmp_path, *rows: str, header: str = ",".join(LABEL_COLUMNS), encoding="utf-8"):
    path = tmp_path / "ffhq_aging_labels.csv"
    path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return path


def test_values_are_read_and_minus_one_is_missing(tmp_path):
    label = read_labels(write(tmp_path, GOOD, encoding="utf-8-sig"))[7]
    assert (label.age_group, label.gender, label.glasses) == ("3-6", "female", "None")
    assert (label.head_pitch, label.head_roll, label.head_yaw) == (None, 2.5, None)
    assert (label.left_eye_occluded, label.right_eye_occluded) == (3.0, None)
    assert label.age_group_confidence == pytest.approx(0.9)


def test_further_columns_and_another_order_do_no_harm(tmp_path):
    header = "glasses,note," + ",".join(LABEL_COLUMNS[:-1])
    labels = read_labels(write(tmp_path, "Dark,x," + GOOD.rsplit(",", 1)[0], header=header))
    assert labels[7].glasses == "Dark"


@pytest.mark.parametrize(
    "value",
    ["3-Jun", "6-Mar", "Mar-06", "2026-03-06", "2026-03-06 00:00:00", "Oct-14", "14-Oct-2026",
     "10/14/2026", "06.03.2026", "14. Okt", "45357"],
)  # fmt: skip
def test_age_groups_that_became_dates_are_refused(tmp_path, value):
    path = write(tmp_path, GOOD, GOOD.replace("7,3-6", f"8,{value}"))
    with pytest.raises(DataError, match=r"line 3 of ") as caught:
        read_labels(path)
    assert value in str(caught.value)
    if value != "14. Okt":  # a German month is an unknown group: refused too, without the reason
        assert "as text" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (GOOD.replace("3-6", "4-8"), "one of 0-2"),
        (GOOD.replace("7,", "7.0,", 1), "a whole number"),
        (GOOD.replace("7,", "99999999999,", 1), "a whole number"),
        (GOOD.replace("0.9", "90"), "from 0 to 1"),
        (GOOD.replace("2.5", "nan"), "a number"),
        (GOOD.replace("2.5", "left"), "a number"),
        (GOOD.replace("female", "f"), "one of male, female"),
        (GOOD.replace("None", "Round"), "one of None, Normal, Dark"),
        (GOOD + ",more", "Expected 11 values"),
        (GOOD.replace("None", '"None'), "Expected a CSV file"),
    ],
)
def test_values_that_the_dataset_does_not_have_are_refused(tmp_path, row, said):
    with pytest.raises(DataError, match=said):
        read_labels(write(tmp_path, row))


def test_an_image_listed_twice_is_refused_with_both_lines(tmp_path):
    with pytest.raises(DataError, match="image_number 7 in lines 2 and 4"):
        read_labels(write(tmp_path, GOOD, GOOD.replace("7,", "8,", 1), GOOD))


def test_headers_are_checked(tmp_path):
    with pytest.raises(DataError, match="missing glasses"):
        read_labels(write(tmp_path, GOOD, header=",".join(LABEL_COLUMNS[:-1])))
    with pytest.raises(DataError, match="semicolons"):
        read_labels(write(tmp_path, GOOD, header=";".join(LABEL_COLUMNS)))
    with pytest.raises(DataError, match="gender several times"):
        read_labels(write(tmp_path, GOOD, header=",".join([*LABEL_COLUMNS, "gender"])))
    with pytest.raises(DataError, match="0xe9 in line 2"):
        read_labels(write(tmp_path, GOOD.replace("None", "é"), encoding="latin-1"))


def test_numbers_come_from_names_of_digits_alone():
    assert image_number_of("00000/00012.png") == 12
    for name in ("img12.png", "12 (1).png", "٣.png", "202603061200591.png", "-1.png"):
        assert image_number_of(name) is None


def test_labels_without_images_and_images_without_labels_are_counted():
    messages = describe_coverage(num_labels=3, num_absent=2, num_unlabelled=1, num_unnamed=1)
    assert [":" in message for message in messages] == [True] * 3
    assert "2 of 3" in messages[0]
    assert describe_coverage(1, 0, 0, 0) == []
