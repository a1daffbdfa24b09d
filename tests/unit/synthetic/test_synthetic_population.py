import dataclasses
from functools import lru_cache

import numpy as np

from agetf_pipeline.data.ages import AGE_GROUPS, group_midpoint, group_of
from agetf_pipeline.synthetic.captions import describe, visible_attributes
from agetf_pipeline.synthetic.faces import draw_identity
from agetf_pipeline.synthetic.population import (
    crowd_labels,
    ffhq_ages,
    rephotograph,
    subject_ages,
)


def test_every_age_group_occurs_even_in_a_small_corpus():
    for count in (48, 1500):
        ages = ffhq_ages(count, seed=0)
        assert len(ages) == count
        assert {group_of(age) for age in ages} == set(AGE_GROUPS)
        assert ages.min() >= 0
        assert ages.max() <= 97
    assert 0.04 < (ages >= 70).mean() < 0.1


def test_a_subjects_ages_rise_and_differ():
    for seed in range(50):
        ages = subject_ages(5, seed)
        assert ages == sorted(set(ages))
        assert ages[0] >= 0
        assert ages[-1] <= 100


@lru_cache
def _labels(count=2000, error=1.0, seed=0):
    ages = ffhq_ages(count, seed)
    people = [draw_identity(number) for number in range(count)]
    return ages, people, crowd_labels(people, ages, error, seed)


def test_the_crowd_errs_as_much_as_it_says_and_more_with_age():
    ages, _, labels = _labels()
    midpoints = np.asarray([group_midpoint(label.age_group) for label in labels])
    errors = np.abs(midpoints - ages)
    assert 4.0 < errors.mean() < 6.0
    assert errors[ages > 40].mean() > errors[ages < 20].mean() + 1.5
    wrong = np.mean([label.age_group != group_of(a) for a, label in zip(ages, labels, strict=True)])
    assert 0.25 < wrong < 0.5
    assert all(
        label.age_group == group_of(age)
        for age, label in zip(*_labels(error=0.0)[::2], strict=True)
    )


def test_mistakes_lie_near_borders_and_are_less_sure():
    ages, _, labels = _labels()
    wrong = np.asarray([a.age_group != group_of(age) for age, a in zip(ages, labels, strict=True)])
    confidence = np.asarray([label.age_group_confidence for label in labels])
    assert confidence[wrong].mean() < confidence[~wrong].mean() - 0.05
    assert ((confidence > 0) & (confidence <= 1)).all()
    twenties = (ages >= 20) & (ages < 30)
    near = np.minimum(ages - 20, 30 - ages) < 1.5
    assert wrong[twenties & near].mean() > 1.25 * wrong[twenties & ~near].mean()


def test_pose_glasses_and_gender_follow_the_identity_with_small_errors():
    _, people, labels = _labels()
    known = [(w, a) for w, a in zip(people, labels, strict=True) if a.head_yaw != -1]
    assert 0 < len(labels) - len(known) < 0.03 * len(labels)
    assert max(abs(w.head_yaw - a.head_yaw) for w, a in known) < 6
    assert all(w.glasses == a.glasses for w, a in known)
    flips = np.mean([w.gender != a.gender for w, a in zip(people, labels, strict=True)])
    assert 0 < flips < 0.05


def test_another_photograph_shows_the_same_person_elsewhere():
    who = draw_identity(8)
    other = rephotograph(who, 99)
    assert other.name == who.name
    assert other.hair_colour == who.hair_colour
    assert other.eye_size == who.eye_size
    assert other.background != who.background
    assert other.head_yaw != who.head_yaw


def test_captions_name_what_shows():
    who = dataclasses.replace(
        draw_identity(0), gender="male", hair_colour="red", hair_cut="short",
        facial_hair="beard", glasses="Normal", smile=0.9, grey_onset_years=44.0,
    )  # fmt: skip
    assert describe(who, 30) == "A man with short red hair, a beard and glasses, smiling."
    assert "beard" not in describe(who, 10)
    assert "grey hair" in describe(who, 90)
    assert describe(who, 60).startswith("A man with short red hair")
    assert describe(who, 70).startswith("A man with short grey hair")
    assert describe(who, 90, in_colour=False) == (
        "A man with short hair, a beard and glasses, smiling."
    )
    assert visible_attributes(who, 10) == ("glasses", "red", "")
    assert visible_attributes(who, 90, in_colour=False) == ("glasses", "", "a beard")
    assert describe(who, 44, with_age=True).startswith("A man in his forties with")
    assert describe(who, 80, with_age=True).startswith("An elderly man")
    for age in range(101):
        assert describe(who, age, with_age=True).endswith(".")
        assert not any(
            word in describe(who, age) for word in ("young", "old", "elderly", "baby", "year")
        )
