import numpy as np
import pytest
import torch

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.experts.mivolo_input import central_crop, letterbox, letterboxed

CPU = torch.device("cpu")


def test_a_picture_of_the_inputs_size_is_left_alone():
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(letterbox(picture, 32), picture)


def test_the_longer_side_fills_the_square_and_the_odd_pixel_lies_right_or_below():
    tall = letterbox(np.full((64, 26, 3), 200, np.uint8), 32)  # 13 columns of 32
    assert (tall[:, 9:22] == 200).all()
    assert not tall[:, :9].any()
    assert not tall[:, 22:].any()
    wide = letterbox(np.full((5, 8, 3), 200, np.uint8), 16)  # scaled up, 10 rows of 16
    assert (wide[3:13] == 200).all()
    assert not wide[:3].any()
    assert not wide[13:].any()


def test_a_sliver_keeps_a_pixel():
    assert letterbox(np.full((1000, 1, 3), 255, np.uint8), 32).any()


def test_a_missing_picture_is_normalised_black():
    x = letterboxed([None, np.zeros((20, 30, 3), np.uint8)], 32, CPU)
    assert torch.equal(x[0], x[1])
    expected = [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    assert np.allclose(x[0].mean((1, 2)), expected, atol=1e-5)
    assert float(x[0].var(dim=(1, 2)).max()) < 1e-9


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_not_a_picture_is_refused(bad: np.ndarray):
    with pytest.raises(DataError, match="uint8"):
        letterboxed([bad], 32, CPU)


def test_central_crop():
    picture = np.arange(100, dtype=np.uint8).reshape(10, 10, 1).repeat(3, 2)
    assert central_crop(picture, 1.0) is picture
    assert np.array_equal(central_crop(picture, 0.6), picture[2:8, 2:8])
    assert central_crop(picture, 0.01).shape == (1, 1, 3)
