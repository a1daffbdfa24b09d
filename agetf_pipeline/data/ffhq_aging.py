"""FFHQ-Aging: images named by number, and the crowd's labels in one CSV."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.ages import AGE_GROUPS
from agetf_pipeline.data.csv_files import read_csv, refuse_spreadsheet_date

LABELS_NAME = "ffhq_aging_labels.csv"
LABEL_COLUMNS: tuple[str, ...] = (
    "image_number", "age_group", "age_group_confidence", "gender", "gender_confidence",
    "head_pitch", "head_roll", "head_yaw", "left_eye_occluded", "right_eye_occluded", "glasses",
)  # fmt: skip
"""The columns of the dataset's CSV, in its order."""

GENDERS = ("male", "female")
GLASSES = ("None", "Normal", "Dark")
"""`None` is a value of the dataset: no glasses."""

_CONFIDENCES = ("age_group_confidence", "gender_confidence")
_POSES = ("head_pitch", "head_roll", "head_yaw", "left_eye_occluded", "right_eye_occluded")
_MISSING = "-1"
_MAX_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class Label:
    """One row of the labels. None: the CSV says nothing (empty, or -1 in the pose columns)."""

    image_number: int
    age_group: str | None
    age_group_confidence: float | None
    gender: str | None
    gender_confidence: float | None
    head_pitch: float | None
    head_roll: float | None
    head_yaw: float | None
    left_eye_occluded: float | None
    right_eye_occluded: float | None
    glasses: str | None


def image_number_of(relative: str) -> int | None:
    """Return the number that an image is named by (`00012.png`: 12), None for other names."""
    return _whole_number(PurePosixPath(relative).stem)


def read_labels(path: Path) -> dict[int, Label]:
    """Read `ffhq_aging_labels.csv`.

    Returns:
        Image number to label.

    Raises:
        DataError: The file is not UTF-8, lacks columns, lists a number twice, holds a value that
            the dataset does not have, or age groups that a spreadsheet turned into dates.
    """
    labels: dict[int, Label] = {}
    lines: dict[int, int] = {}
    for line, label in iter_labels(path):
        first = lines.setdefault(label.image_number, line)
        if first != line:
            raise listed_twice(path, label.image_number, first, line)
        labels[label.image_number] = label
    return labels


def iter_labels(path: Path) -> Iterator[tuple[int, Label]]:
    """Yield the rows of `ffhq_aging_labels.csv` with their lines, as they come.

    Raises:
        DataError: As `read_labels`, except that a number may come twice.
    """
    for line, values in read_csv(path, LABEL_COLUMNS):
        yield line, _parse(path, line, values)


def listed_twice(path: Path, image_number: int, first: int, line: int) -> DataError:
    """Return the error about a number that two lines have."""
    return DataError(
        f"Expected each image once in {path}; found image_number {image_number} in "
        f"lines {first} and {line}. Keep the right one."
    )


def describe_coverage(
    num_labels: int, num_absent: int, num_unlabelled: int, num_unnamed: int
) -> list[str]:
    """Return sentences about how labels and images fit together.

    Args:
        num_labels: Rows of the labels.
        num_absent: Those whose image is not there.
        num_unlabelled: Images whose number has no row.
        num_unnamed: Images that are not named by a number.
    """
    messages = []
    if num_absent:
        messages.append(
            f"Rows of {LABELS_NAME} whose images are not here, or in quarantine: {num_absent} of "
            f"{num_labels}. They are not used."
        )
    if num_unlabelled:
        messages.append(
            f"Images without a row in {LABELS_NAME}: {num_unlabelled}. They go on without labels."
        )
    if num_unnamed:
        messages.append(
            f"Images not named by a number such as 00012.png: {num_unnamed}. No row of "
            f"{LABELS_NAME} can be theirs; they go on without labels."
        )
    return messages


def _parse(path: Path, line: int, values: dict[str, str]) -> Label:
    text = values["image_number"]
    image_number = _whole_number(text)
    if image_number is None:
        raise _unexpected(path, line, "image_number", text, "a whole number")
    group = values["age_group"]
    if group and group not in AGE_GROUPS:
        refuse_spreadsheet_date(path, line, "age_group", group)
        raise _unexpected(path, line, "age_group", group, f"one of {', '.join(AGE_GROUPS)}")
    confidences = {name: _number(path, line, name, values[name]) for name in _CONFIDENCES}
    for name, value in confidences.items():
        if value is not None and not 0 <= value <= 1:
            raise _unexpected(path, line, name, values[name], "a number from 0 to 1")
    poses = {
        name: None if value == float(_MISSING) else value
        for name, value in ((name, _number(path, line, name, values[name])) for name in _POSES)
    }
    return Label(
        image_number=image_number,
        age_group=group or None,
        gender=_choice(path, line, "gender", values["gender"], GENDERS),
        glasses=_choice(path, line, "glasses", values["glasses"], GLASSES),
        **confidences,
        **poses,
    )


def _whole_number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > _MAX_NUMBER:
        return None
    return int(text)


def _number(path: Path, line: int, column: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise _unexpected(path, line, column, text, "a number") from error
    if not math.isfinite(value):
        raise _unexpected(path, line, column, text, "a number")
    return value


def _choice(path: Path, line: int, column: str, text: str, choices: tuple[str, ...]) -> str | None:
    if text in ("", _MISSING):
        return None
    if text not in choices:
        raise _unexpected(path, line, column, text, f"one of {', '.join(choices)}")
    return text


def _unexpected(path: Path, line: int, column: str, found: str, expected: str) -> DataError:
    return DataError(
        f"Expected {expected} in column {column}, line {line} of {path}; found {found!r}. "
        "Correct the line, or restore the dataset's own file."
    )
