"""Which images hold a face that the detector of photographs finds."""

import numpy as np
import pytest

from agetf_pipeline.evaluation.face_found import SEARCH_PX, DetectorFinder, detector_finder
from agetf_pipeline.synthetic.faces import draw_face, draw_identity


def faces(num: int, size_px: int) -> np.ndarray:
    return np.stack([draw_face(draw_identity(i), 20.0 + 5 * i, size_px) for i in range(num)])


@pytest.mark.parametrize("size_px", [64, 128])
def test_finds_drawn_faces_and_nothing_without_one(size_px):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (8, size_px, size_px, 3), dtype=np.uint8)
    grey = np.full((1, size_px, size_px, 3), 128, np.uint8)
    drawn = faces(8, size_px)
    found = detector_finder().found(np.concatenate([drawn, noise, grey]))
    assert found.dtype == bool
    assert found[:8].mean() >= 7 / 8
    assert not found[8:].any()


def test_a_face_that_is_blurred_away_is_not_found():
    from agetf_pipeline.evaluation.image_metrics import resize_bicubic

    blurred = np.stack([resize_bicubic(resize_bicubic(f, 5, 5), 64, 64) for f in faces(8, 64)])
    assert not detector_finder().found(blurred).any()


class Recorder:
    """Finds a face in bright images and keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, ...]] = []

    def has_face(self, rgb: np.ndarray) -> bool:
        self.shown.append(rgb.shape)
        return bool(rgb.mean() > 100)


@pytest.mark.parametrize("size_px", [32, SEARCH_PX, 512])
def test_images_of_any_size_are_searched_at_one(size_px):
    recorder = Recorder()
    images = np.zeros((3, size_px, size_px, 3), np.uint8)
    images[1] = 200
    assert DetectorFinder(recorder).found(images).tolist() == [False, True, False]
    assert recorder.shown == [(SEARCH_PX, SEARCH_PX, 3)] * 3


def test_no_images_are_no_answers():
    assert detector_finder().found(np.empty((0, 64, 64, 3), np.uint8)).shape == (0,)
