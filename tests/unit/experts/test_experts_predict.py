import numpy as np
import pytest

from agetf_pipeline.data.schemas import PREDICTIONS
from agetf_pipeline.data.tables import conform
from agetf_pipeline.experts.base import Readings, readings_from_distribution
from agetf_pipeline.experts.predict import read_faces


class BrightnessExpert:
    """Age = mean brightness / 255 * 100; a black face breaks it, a white one has no reading."""

    name = "mivolo"
    version = "abc-1"
    trained_on = "synthetic"

    def read(self, faces_NHWC: np.ndarray) -> Readings:
        mean = faces_NHWC.mean(axis=(1, 2, 3))
        if (mean == 0).any():
            raise RuntimeError("cannot see")
        age = np.where(mean == 255, np.nan, mean / 2.55).astype(np.float32)
        reasons = tuple("too bright" if np.isnan(a) else None for a in age)
        return Readings(age, np.full_like(age, 3.0), None, None, reasons)


class UniformExpert:
    name = "vgg16"
    version = "def-1"
    trained_on = "synthetic"

    def read(self, faces_NHWC: np.ndarray) -> Readings:
        return readings_from_distribution(np.full((len(faces_NHWC), 101), 1 / 101))


def _faces(*brightness: int) -> np.ndarray:
    return np.stack([np.full((8, 8, 3), value, np.uint8) for value in brightness])


def test_rows_of_all_experts_fit_the_table():
    rows = read_faces([BrightnessExpert(), UniformExpert()], _faces(51, 102), ["a", "b"], 8)
    conform(rows, PREDICTIONS)
    ages = {(r["image_id"], r["expert"]): r["age_years"] for r in rows.iter_rows(named=True)}
    assert ages["a", "mivolo"] == pytest.approx(20)
    assert ages["b", "mivolo"] == pytest.approx(40)
    assert ages["a", "vgg16"] == pytest.approx(50, abs=1e-3)
    assert rows["status"].unique().to_list() == ["ok"]


def test_one_bad_face_costs_one_row():
    rows = read_faces(
        [BrightnessExpert(), UniformExpert()], _faces(51, 0, 255, 102), list("abcd"), 4
    )
    conform(rows, PREDICTIONS)
    failed = rows.filter(status="failed").sort("image_id")
    assert failed["image_id"].to_list() == ["b", "c"]
    assert failed["expert"].to_list() == ["mivolo", "mivolo"]
    assert failed["reason"].to_list() == ["RuntimeError: cannot see", "too bright"]
    assert failed["age_years"].null_count() == 2
    assert rows.filter(status="ok").height == 6


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_batch_size_changes_nothing(batch_size: int):
    faces, names = _faces(10, 0, 30, 40, 50), list("abcde")
    expected = read_faces([BrightnessExpert()], faces, names, 5)
    assert read_faces([BrightnessExpert()], faces, names, batch_size).equals(expected)


@pytest.mark.parametrize(
    ("age", "sigma", "words"), [(101.0, 3.0, "outside"), (50.0, 0.0, "not a positive number")]
)
def test_impossible_readings_are_failures(age: float, sigma: float, words: str):
    class Odd(BrightnessExpert):
        def read(self, faces_NHWC: np.ndarray) -> Readings:
            num = len(faces_NHWC)
            one = np.ones(num, np.float32)
            return Readings(age * one, sigma * one, None, None, (None,) * num)

    rows = read_faces([Odd()], _faces(9), ["a"], 4)
    assert rows["status"].to_list() == ["failed"]
    assert words in rows["reason"][0]
    assert rows["age_years"][0] is None


def test_a_reading_too_few_is_a_failure():
    class Short(BrightnessExpert):
        def read(self, faces_NHWC: np.ndarray) -> Readings:
            one = np.ones(0, np.float32)
            return Readings(one, one, None, None, ())

    rows = read_faces([Short()], _faces(9, 10), ["a", "b"], 4)
    assert rows["status"].to_list() == ["failed", "failed"]


def test_no_face_gives_no_row():
    rows = read_faces([UniformExpert()], np.empty((0, 8, 8, 3), np.uint8), [], 4)
    assert rows.height == 0
    with pytest.raises(ValueError, match="do not go with"):
        read_faces([UniformExpert()], _faces(1), [], 4)
