import io

import numpy as np
import pytest
from PIL import Image

from agetf_pipeline.synthetic.degrade import DEGRADATIONS, degrade, encode_degraded
from agetf_pipeline.synthetic.faces import draw_face, draw_identity

_FACE = draw_face(draw_identity(2), 33, 128)


def _rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_each_kind_changes_the_picture_and_is_repeatable(kind):
    once, twice = (degrade(_FACE, [kind], _rng()) for _ in range(2))
    assert np.array_equal(once, twice)
    assert once.dtype == np.uint8
    assert once.shape != _FACE.shape or not np.array_equal(once, _FACE)


def test_nothing_asked_changes_nothing():
    assert np.array_equal(degrade(_FACE, [], _rng()), _FACE)


def test_grey_has_equal_channels_and_is_stored_with_one():
    grey = degrade(_FACE, ["grey"], _rng())
    assert np.array_equal(grey[..., 0], grey[..., 1])
    assert np.array_equal(grey[..., 0], grey[..., 2])
    data, suffix = encode_degraded(_FACE, ["grey"], _rng())
    assert suffix == ".png"
    assert Image.open(io.BytesIO(data)).mode == "L"


def test_low_res_halves_the_side():
    assert degrade(_FACE, ["low_res", "grey"], _rng()).shape == (64, 64, 3)


def test_blur_takes_detail_away():
    blurred = degrade(_FACE, ["blur"], _rng())
    assert (
        np.abs(np.diff(blurred.astype(int), axis=0)).mean()
        < 0.8 * np.abs(np.diff(_FACE.astype(int), axis=0)).mean()
    )


def test_jpeg_is_a_jpeg_file():
    data, suffix = encode_degraded(_FACE, ["jpeg", "blur"], _rng())
    assert suffix == ".jpg"
    assert Image.open(io.BytesIO(data)).format == "JPEG"
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(data))), degrade(_FACE, ["blur", "jpeg"], _rng())
    )


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="sepia"):
        degrade(_FACE, ["sepia"], _rng())
