import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from agetf_pipeline.core.hashing import hash_bytes
from agetf_pipeline.synthetic.ageing import age_cues, proportions
from agetf_pipeline.synthetic.faces import draw_face, draw_identity

_AGES = np.arange(0, 101, 4)


def _find(**wanted):
    return next(
        who
        for who in map(draw_identity, range(2000))
        if all(getattr(who, name) == value for name, value in wanted.items())
    )


@pytest.mark.parametrize("size_px", [64, 100, 128, 256])
def test_a_face_is_a_square_rgb_picture_with_contrast(size_px):
    face = draw_face(draw_identity(3), 30, size_px)
    assert face.shape == (size_px, size_px, 3)
    assert face.dtype == np.uint8
    assert face.flags.c_contiguous
    assert face.std() > 15


def test_the_same_arguments_give_the_same_bytes_in_another_process():
    code = (
        "from agetf_pipeline.synthetic.faces import draw_face, draw_identity;"
        "from agetf_pipeline.core.hashing import hash_bytes;"
        "print(hash_bytes(draw_face(draw_identity(12), 41.5, 96).tobytes()))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = hash_bytes(draw_face(draw_identity(12), 41.5, 96).tobytes())
    assert other.stdout.strip() == here


def test_drawing_leaves_no_trace_on_later_faces():
    first = draw_face(draw_identity(1), 70, 64)
    for seed in range(20):
        draw_face(draw_identity(seed), seed * 5, 64)
    assert np.array_equal(first, draw_face(draw_identity(1), 70, 64))


def test_ages_beyond_the_scale_are_drawn_at_its_ends():
    who = draw_identity(5)
    assert np.array_equal(draw_face(who, -3, 64), draw_face(who, 0, 64))
    assert np.array_equal(draw_face(who, 140, 64), draw_face(who, 100, 64))


@pytest.mark.parametrize(
    ("age", "size"), [(float("nan"), 64), (float("inf"), 64), (30, 8), (30, 4096)]
)
def test_impossible_arguments_are_refused(age, size):
    with pytest.raises(ValueError):
        draw_face(draw_identity(0), age, size)


def test_childrens_eyes_are_large_and_low_and_their_noses_small():
    who = draw_identity(9)
    child, adult = (proportions(who, age_cues(who, age)) for age in (1, 25))
    assert child.eye_up / child.eye_w > adult.eye_up / adult.eye_w
    assert child.eye_w > adult.eye_w
    assert child.eye_y > adult.eye_y
    assert child.nose_w < adult.nose_w
    assert child.nose_h < adult.nose_h
    assert child.jaw_ry < adult.jaw_ry


def test_facial_hair_comes_after_puberty_and_only_to_those_who_grow_it():
    bearded = _find(facial_hair="beard", glasses="None")
    shaven = dataclasses.replace(bearded, facial_hair="none")
    for age in (0, 8, 13):
        assert np.array_equal(draw_face(bearded, age, 64), draw_face(shaven, age, 64))
    chin = np.s_[44:56, 20:44]
    differences = [
        np.abs(
            draw_face(bearded, age, 64)[chin].astype(int) - draw_face(shaven, age, 64)[chin]
        ).mean()
        for age in (15, 16, 17, 18)
    ]
    assert differences == sorted(differences)
    assert differences[-1] > 15
    assert all(
        who.facial_hair == "none" for who in map(draw_identity, range(60)) if who.gender == "female"
    )


def test_dark_hair_turns_light_with_age():
    who = dataclasses.replace(
        _find(hair_colour="black", hair_cut="long", glasses="None"), balding=0.0, head_yaw=0.0
    )
    crown = np.s_[4:12, 22:42]
    light = [draw_face(who, age, 64)[crown].mean() for age in (25, 50, 65, 80, 95)]
    assert light == sorted(light)
    assert light[-1] > light[0] + 60


def test_old_skin_has_more_detail_than_young_skin():
    rises = 0
    for seed in range(20):
        who = dataclasses.replace(draw_identity(seed), glasses="None", facial_hair="none")
        young, old = (_detail(draw_face(who, age, 128)[24:104, 30:98]) for age in (22, 80))
        rises += old > 1.2 * young
    assert rises >= 18


def _detail(face):
    grey = face.astype(np.float32).mean(axis=2)
    smooth = (grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1]) / 4
    return float(np.abs(grey[1:-1, 1:-1] - smooth).mean())


def test_a_person_at_near_ages_is_nearer_than_another_person():
    own, others = [], []
    for seed in range(12):
        face = draw_face(draw_identity(seed), 30, 64).astype(np.float32)
        own.append(np.abs(face - draw_face(draw_identity(seed), 45, 64)).mean())
        others.append(np.abs(face - draw_face(draw_identity(seed + 100), 30, 64)).mean())
    assert max(own) < min(others)


def test_the_attributes_of_the_population_all_occur():
    people = [draw_identity(seed) for seed in range(400)]
    for name, count in (
        ("gender", 2),
        ("hair_colour", 4),
        ("facial_hair", 3),
        ("glasses", 3),
        ("hair_cut", 7),
    ):
        assert len({getattr(who, name) for who in people}) == count


@pytest.mark.parametrize("glasses", ["Normal", "Dark"])
def test_glasses_are_drawn_about_the_eyes(glasses):
    who = dataclasses.replace(draw_identity(4), glasses="None")
    change = np.abs(
        draw_face(who, 30, 64).astype(int)
        - draw_face(dataclasses.replace(who, glasses=glasses), 30, 64)
    ).mean(axis=(1, 2))
    assert change[20:42].mean() > 5
    assert change[50:].mean() == 0
