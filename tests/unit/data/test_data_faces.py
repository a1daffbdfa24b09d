"""Finding faces in photographs and cutting them out as FFHQ does."""

import numpy as np
import pytest

from agetf_pipeline.data.faces import (
    FoundFace,
    choose_face,
    crop_face,
    default_detector,
    find_and_crop,
)
from agetf_pipeline.synthetic.faces import draw_face, draw_identity


class Fixed:
    def __init__(self, *faces: FoundFace) -> None:
        self.faces = list(faces)

    def find(self, rgb: np.ndarray) -> list[FoundFace]:
        return self.faces


def dots(size: int, *places: tuple[float, float]) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] + 0.5
    image = np.zeros((size, size))
    for x, y in places:
        image += np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (size / 60) ** 2))
    return np.repeat((255 * image.clip(0, 1)).astype(np.uint8)[:, :, None], 3, axis=2)


def brightest(image: np.ndarray) -> tuple[float, float]:
    weights = image[:, :, 0].astype(float) ** 2
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return float((weights * columns).sum() / weights.sum()), float(
        (weights * rows).sum() / weights.sum()
    )


@pytest.mark.parametrize(("angle", "distance"), [(0.0, 60.0), (0.35, 60.0), (-0.35, 30.0)])
def test_eyes_come_out_level_and_a_quarter_of_the_side_apart(angle, distance):
    middle = np.array([200.0, 190.0])
    half = np.array([np.cos(angle), np.sin(angle)]) * distance / 2
    eyes = tuple(middle - half), tuple(middle + half)
    face = FoundFace(150, 150, 100, eyes)
    for index, expected_x in enumerate((0.375, 0.625)):
        crop = crop_face(dots(400, eyes[index]), face, 128)
        x, y = brightest(crop)
        assert x / 128 == pytest.approx(expected_x, abs=0.01)
        assert y / 128 == pytest.approx(0.475, abs=0.01)


def test_a_large_face_is_averaged_down_without_moving():
    eyes = ((400.0, 500.0), (600.0, 500.0))
    crop = crop_face(dots(1000, eyes[0]), FoundFace(300, 300, 400, eyes), 64)
    x, y = brightest(crop)
    assert x / 64 == pytest.approx(0.375, abs=0.01)
    assert y / 64 == pytest.approx(0.475, abs=0.01)


def test_beyond_the_picture_the_crop_is_mirrored_not_black():
    white = np.full((100, 100, 3), 200, np.uint8)
    crop = crop_face(white, FoundFace(0, 0, 90), 64)
    assert crop.shape == (64, 64, 3)
    assert crop.min() == 200


def test_the_most_prominent_of_several_faces_is_taken_and_flagged():
    large, small = FoundFace(10, 10, 80), FoundFace(200, 200, 40)
    tiny = FoundFace(100, 100, 10)
    assert choose_face([small, large], 300, 300) == large
    assert choose_face([], 300, 300) is None
    scene = np.zeros((300, 300, 3), np.uint8)
    crowd = find_and_crop(scene, 64, Fixed(large, small))
    alone = find_and_crop(scene, 64, Fixed(large, tiny))
    assert crowd is not None
    assert alone is not None
    assert "several_faces" in crowd[1]
    assert "several_faces" not in alone[1]


def test_a_small_face_is_flagged_and_none_is_none():
    scene = np.zeros((300, 300, 3), np.uint8)
    found = find_and_crop(scene, 256, Fixed(FoundFace(0, 0, 40)))
    assert found is not None
    assert found[1] == ["face_cropped", "eyes_not_found", "low_res_face"]
    assert find_and_crop(scene, 256, Fixed()) is None


def test_the_cascades_find_a_drawn_face_in_a_scene_and_none_in_an_empty_one():
    rows, columns = np.mgrid[:400, :600]
    scene = np.stack([(rows + columns) // 5] * 3, axis=2).astype(np.uint8)
    assert find_and_crop(scene, 128, default_detector()) is None
    face = draw_face(draw_identity(8), 35.0, 192)
    scene[100:292, 300:492] = face
    (found,) = default_detector().find(scene)
    assert found.left + found.side / 2 == pytest.approx(396, abs=15)
    assert found.eyes is not None
    crop = find_and_crop(scene, 128, default_detector())
    assert crop is not None
    # The drawn face is aligned as FFHQ's are, so that the crop is the face again.
    reference = np.asarray(face[::3, ::3], dtype=float)
    again = np.asarray(crop[0][::2, ::2], dtype=float)
    correlation = np.corrcoef(reference.ravel(), again.ravel())[0, 1]
    assert correlation > 0.7


def test_whether_there_is_a_face_is_answered_as_by_finding_it():
    rng = np.random.default_rng(0)
    detector = default_detector()
    pictures = [draw_face(draw_identity(seed), 5.0 + 9 * seed, 128) for seed in range(8)]
    pictures += [rng.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(4)]
    verdicts = [detector.has_face(picture) for picture in pictures]
    assert verdicts == [bool(detector.find(picture)) for picture in pictures]
    assert sum(verdicts[:8]) >= 4
    assert not any(verdicts[8:])
