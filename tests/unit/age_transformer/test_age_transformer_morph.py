"""Films through ages."""

import numpy as np
import pytest
from PIL import Image

from agetf_pipeline.age_transformer import morph
from agetf_pipeline.age_transformer.morph import draw_frames, morph_ages, save_gif, save_mp4
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.synthetic.faces import draw_face, draw_identity


@pytest.fixture(scope="module")
def frames():
    faces = np.stack([draw_face(draw_identity(3), age, 64) for age in (5.0, 35.0, 65.0, 95.0)])
    return draw_frames(faces, [5, 35, 65, 95])


def test_ages_run_evenly_from_the_lowest_to_the_highest():
    ages = morph_ages([95, 5, 40])
    assert len(ages) == 48
    assert (ages[0], ages[-1]) == (5, 95)
    np.testing.assert_allclose(np.diff(ages), 90 / 47)
    assert morph_ages([0, 100], 3) == [0, 50, 100]
    for wrong in (([30], 48), ([30, 30], 48), ([5, 95], 1)):
        with pytest.raises(DataError, match="--ages 5 95"):
            morph_ages(*wrong)


def test_frames_are_large_enough_to_read_even_and_captioned(frames):
    assert frames.shape == (4, 292, 256, 3)
    strips = frames[:, 256:]
    assert (strips.reshape(4, -1).min(axis=1) < 80).all()  # ink on paper
    assert strips.max() == 255
    assert (strips[0] != strips[1]).any()
    large = draw_frames(np.zeros((1, 512, 512, 3), np.uint8), [40])
    assert large.shape[2] == 512
    assert not large[:, :512].any()


def test_a_gif_runs_forth_and_back_and_is_the_same_file_twice(frames, tmp_path):
    path = save_gif(tmp_path / "morph.gif", frames)
    with Image.open(path) as film:
        assert film.n_frames == 6
        assert film.info["loop"] == 0
        shown, durations = [], []
        for index in range(6):
            film.seek(index)
            shown.append(np.asarray(film.convert("RGB")).astype(int))
            durations.append(film.info["duration"])
    for position, index in enumerate((0, 1, 2, 3, 2, 1)):
        # 256 colours for the whole film.
        assert np.abs(shown[position] - frames[index]).mean() < 6
    assert durations == [600, 40, 40, 600, 40, 40]
    assert save_gif(tmp_path / "again.gif", frames).read_bytes() == path.read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"morph.gif", "again.gif"}


def test_an_mp4_can_be_played(frames, tmp_path):
    import cv2

    path = save_mp4(tmp_path / "morph.mp4", frames)
    film = cv2.VideoCapture(str(path))
    assert film.get(cv2.CAP_PROP_FPS) == 25
    assert int(film.get(cv2.CAP_PROP_FRAME_COUNT)) == 15 + 1 + 1 + 15 + 1 + 1
    read, first = film.read()
    film.release()
    assert read
    assert np.abs(first[:, :, ::-1].astype(int) - frames[0]).mean() < 6
    assert [file.name for file in tmp_path.iterdir()] == ["morph.mp4"]


def test_without_a_codec_a_gif_is_proposed_and_nothing_is_left(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(morph, "_CODECS", ("none",))
    with pytest.raises(DataError, match="--format gif"):
        save_mp4(tmp_path / "morph.mp4", frames)
    assert list(tmp_path.iterdir()) == []
