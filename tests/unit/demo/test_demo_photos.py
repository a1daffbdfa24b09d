"""Pictures given to the app: the face, or a message that a person can act on."""

import numpy as np
import pytest
from PIL import Image

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.demo.photos import face_choice, read_upload
from agetf_pipeline.synthetic.faces import draw_face, draw_identity


@pytest.fixture
def two_faces(tmp_path):
    faces = [draw_face(draw_identity(seed), age, 256) for seed, age in ((5, 30), (2, 50))]
    path = tmp_path / "two.png"
    Image.fromarray(np.concatenate(faces, axis=1)).save(path)
    return path


def test_several_faces_are_a_choice(two_faces):
    with pytest.raises(DataError, match=r"2 faces were found\. Choose which one"):
        read_upload(two_faces)
    first, second = (read_upload(two_faces, face_choice(number)) for number in ("1", "2"))
    assert first.rgb.shape == (512, 512, 3)
    assert not np.array_equal(first.rgb, second.rgb)
    assert np.array_equal(read_upload(two_faces, face_choice("largest")).rgb, first.rgb)
    with pytest.raises(DataError, match="Face number 3 was asked for and 2 found"):
        read_upload(two_faces, 3)


def test_no_face_no_picture_too_large(tmp_path):
    empty, text, large = (tmp_path / name for name in ("empty.png", "text.png", "large.png"))
    Image.new("RGB", (300, 300), (90, 120, 150)).save(empty)
    text.write_text("no picture")
    Image.new("1", (8000, 5001)).save(large)
    for path, said in (
        (empty, "No face was found"),
        (text, "cannot be used"),
        (large, "at most 40 mega"),
    ):
        with pytest.raises(DataError, match=said) as raised:
            read_upload(path)
        assert str(tmp_path) not in str(raised.value)
    with pytest.raises(DataError, match="no picture yet"):
        read_upload(None)
