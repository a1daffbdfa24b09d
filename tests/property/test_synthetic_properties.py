import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agetf_pipeline.synthetic.ageing import age_cues
from agetf_pipeline.synthetic.degrade import DEGRADATIONS, degrade
from agetf_pipeline.synthetic.faces import draw_face, draw_identity
from agetf_pipeline.synthetic.population import FFHQ_SHARES, age_at

_SEEDS = st.integers(0, 2**40)
_AGES = st.floats(0, 100)


@settings(max_examples=200, deadline=None)
@given(_SEEDS, _AGES, _AGES)
def test_no_sign_of_age_ever_turns_back(seed, one, other):
    who = draw_identity(seed)
    younger, older = (dataclasses.asdict(age_cues(who, age)) for age in sorted((one, other)))
    for name, value in younger.items():
        assert 0 <= value <= 1.25
        assert value <= older[name] + 1e-12, name


@settings(max_examples=40, deadline=None)
@given(_SEEDS, st.floats(0, 99.9), st.floats(5, 99.5))
def test_a_little_time_changes_a_face_a_little(seed, age, later_age):
    who = draw_identity(seed)
    # A small child's hair grows fast: months are compared there, half years later in life.
    for start, years, most in ((age, 0.1, 3.5), (later_age, 0.5, 3.5)):
        now, then = (draw_face(who, t, 64).astype(np.int16) for t in (start, start + years))
        assert np.abs(now - then).mean() < most


@settings(max_examples=25, deadline=None)
@given(_SEEDS, st.sampled_from([(0, 8), (8, 20), (20, 40), (40, 60), (60, 80), (80, 100)]))
def test_every_stretch_of_life_can_be_seen(seed, stretch):
    who = dataclasses.replace(draw_identity(seed), glasses="None")
    start, end = (draw_face(who, age, 64).astype(np.int16) for age in stretch)
    assert np.abs(start - end).mean() > 1.0


@settings(max_examples=25, deadline=None)
@given(_SEEDS, _AGES, st.integers(0, 2**30))
def test_drawing_and_degrading_are_functions_of_their_arguments(seed, age, noise_seed):
    face = draw_face(draw_identity(seed), age, 64)
    assert np.array_equal(face, draw_face(draw_identity(seed), age, 64))
    once, twice = (degrade(face, DEGRADATIONS, np.random.default_rng(noise_seed)) for _ in range(2))
    assert np.array_equal(once, twice)
    assert once.shape == (32, 32, 3)


@given(st.floats(0, 1), st.floats(0, 1))
def test_ages_rise_with_their_position_in_the_population(one, other):
    low, high = (age_at(position, FFHQ_SHARES) for position in sorted((one, other)))
    assert 0 <= low <= high <= 97
