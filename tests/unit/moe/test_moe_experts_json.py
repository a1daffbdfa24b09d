"""JSON of many images at once: the bytes of `json.dumps` of rounded values."""

import json
import math

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from agetf_pipeline.moe.experts_json import numbers, objects, rounded, texts

_values = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-130, 130, width=32),
    st.integers(-2_000_000, 2_000_000).map(lambda n: n / 20_000),
    st.integers(-2_000_000, 2_000_000).map(lambda n: n / 65_536),
)


def _python(value):
    return round(value, 4) if math.isfinite(value) else None


@given(st.lists(_values, max_size=30))
def test_numbers_are_spelled_as_python_rounds_and_spells_them(values):
    found = numbers(np.array(values, np.float64)).to_list()
    assert found == [json.dumps(_python(value)) for value in values]


def test_halves_go_where_python_sends_them():
    values = np.array([0.00005, 0.00015, 2.00005, 1.00045, 31.03125, -7.00005, 5e-5 + 1e-18])
    assert rounded(values).tolist() == [round(float(value), 4) for value in values]


@given(st.lists(st.one_of(st.none(), st.text(max_size=8)), max_size=10))
def test_texts_are_escaped(values):
    found = texts(pl.Series(values, dtype=pl.String)).to_list()
    assert found == [json.dumps(value) for value in values]


def test_objects_have_sorted_keys():
    fields = {
        "vgg16": {"weight": numbers(np.array([0.5, np.nan])), "age": numbers(np.array([3.0, 40]))},
        "janus": {"reason": texts(pl.Series(['say "no"', None]))},
    }
    expected = [
        {"vgg16": {"weight": 0.5, "age": 3.0}, "janus": {"reason": 'say "no"'}},
        {"vgg16": {"weight": None, "age": 40.0}, "janus": {"reason": None}},
    ]
    assert objects(fields).to_list() == [json.dumps(item, sort_keys=True) for item in expected]
