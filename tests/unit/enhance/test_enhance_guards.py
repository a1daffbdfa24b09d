"""The guards: each flags what it should, and only that; thresholds and exclusion."""

from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agetf_pipeline.config.enhance import RecheckConfig
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import ENHANCED_AGES
from agetf_pipeline.data.tables import to_frame
from agetf_pipeline.enhance.guard_report import mean_figures, plot_guards, rank_flagged
from agetf_pipeline.enhance.guards import (
    GUARDS,
    find,
    is_excluded,
    is_unjudged,
    judge,
    same_size_sharpness_ratio,
)
from agetf_pipeline.synthetic.faces import draw_face
from agetf_pipeline.synthetic.identity import draw_identity

LIMITS = RecheckConfig()
GOOD = {
    "age_shift_years": 0.4, "identity_similarity": 0.9, "sharpness_ratio": 1.2,
    "colourised": False, "colourfulness_change": 0.2,
}  # fmt: skip


def row(**values: Any) -> dict[str, Any]:
    return {**GOOD, **values}


def table(*rows: dict[str, Any]) -> pl.DataFrame:
    keys = {"enhanced_sha256": "e", "label_version": "l", "guards_version": "1"}
    complete = [
        dict.fromkeys(ENHANCED_AGES.schema.names)
        | {"image_id": f"{number:02}", "flags": [], "flagged": False, **keys, **values}
        for number, values in enumerate(rows)
    ]
    measured = to_frame(complete, ENHANCED_AGES)
    return measured.with_columns(judge(measured, LIMITS))


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ({}, []),
        ({"age_shift_years": 3.1}, ["age"]),
        ({"age_shift_years": -3.1}, ["age"]),
        ({"age_shift_years": 3.0}, []),
        ({"identity_similarity": 0.49}, ["identity"]),
        ({"identity_similarity": -0.2}, ["identity"]),
        ({"sharpness_ratio": 0.4}, ["sharpness"]),
        ({"sharpness_ratio": 0.0}, ["sharpness"]),
        ({"sharpness_ratio": 9.0}, []),
        ({"colourfulness_change": 6.0}, ["colour"]),
        ({"colourfulness_change": -6.0}, ["colour"]),
        ({"colourised": True, "colourfulness_change": 30.0}, []),
        ({"colourised": True, "colourfulness_change": 1.0}, ["colour"]),
        ({"colourised": True, "colourfulness_change": -9.0}, ["colour"]),
        ({"age_shift_years": 9.0, "identity_similarity": 0.0}, ["age", "identity"]),
    ],
)
def test_each_guard_flags_what_it_should_and_only_that(values: dict[str, Any], flags: list[str]):
    verdict = judge(pl.DataFrame([row(**values)]), LIMITS).row(0, named=True)
    assert verdict["flags"] == flags
    assert verdict["flagged"] == bool(flags)
    if not flags:
        assert verdict["reason"] is None
        assert verdict["severity"] == 0
        return
    assert [part.split(":")[0] for part in verdict["reason"].split("; ")] == flags
    assert verdict["severity"] > 1


def test_what_is_not_known_is_not_flagged():
    unknown = dict.fromkeys(GOOD) | {"colourised": False}
    assert find(unknown, LIMITS) == []


number = st.floats(-50, 50, width=32)
measured = st.fixed_dictionaries(
    {
        "age_shift_years": st.none() | number,
        "identity_similarity": st.none() | st.floats(-1, 1, width=32),
        "sharpness_ratio": st.none() | st.floats(0, 50, width=32),
        "colourised": st.booleans(),
        "colourfulness_change": st.none() | number,
    }
)
unit = st.floats(0, 1)


@given(measured, st.tuples(unit, unit, unit, unit, unit), st.tuples(unit, unit, unit, unit, unit))
def test_a_looser_threshold_never_flags_more(values, first, second):
    tight, loose = (
        RecheckConfig(
            max_age_shift_years=0.1 + 20 * choose(pairs[0]),
            max_colourfulness_change=0.1 + 20 * choose(pairs[1]),
            min_identity_similarity=1 - 2 * choose(pairs[2]),
            min_sharpness_ratio=4 * (1 - choose(pairs[3])),
            min_colourfulness_gain=20 * (1 - choose(pairs[4])),
        )
        for pairs in [list(zip(first, second, strict=True))]
        for choose in (min, max)
    )
    flagged = [{finding.guard for finding in find(values, limits)} for limits in (tight, loose)]
    assert flagged[1] <= flagged[0]


def test_what_is_excluded_follows_the_config():
    rows = table(
        row(), row(age_shift_years=5.0), row(sharpness_ratio=0.1), row(identity_similarity=0.0),
        row(sharpness_ratio=0.1, colourfulness_change=9.0),
    )  # fmt: skip
    for exclude, expected in {
        ("age", "identity"): [1, 3], ("age",): [1], ("sharpness", "colour"): [2, 4], (): [],
        GUARDS: [1, 2, 3, 4],
    }.items():  # fmt: skip
        config = RecheckConfig(exclude=list(exclude))
        assert np.flatnonzero(rows.select(is_excluded(config))).tolist() == expected
        off = RecheckConfig(exclude=list(exclude), exclude_flagged=False)
        assert not rows.select(is_excluded(off) | is_unjudged(off)).to_series().any()
    with pytest.raises(ValidationError):
        RecheckConfig.model_validate({"exclude": ["beauty"]})


def test_an_output_that_an_excluding_guard_could_not_judge_is_told_apart():
    rows = table(
        row(), row(age_shift_years=None), row(identity_similarity=None),
        row(identity_similarity=None, identity_version="m"),
        row(identity_similarity=0.0, age_shift_years=None), row(sharpness_ratio=None),
    )  # fmt: skip
    unchecked = pl.DataFrame(schema=rows.schema)
    unchecked = pl.concat([rows, pl.DataFrame({"image_id": ["never"]})], how="diagonal")
    judged = unchecked.select(is_unjudged(LIMITS)).to_series()
    # Without a model the identity guard holds nothing back; what is excluded is not also unknown.
    assert np.flatnonzero(judged).tolist() == [1, 3, 6]
    lenient = RecheckConfig(exclude=["sharpness"])
    assert np.flatnonzero(unchecked.select(is_unjudged(lenient))).tolist() == [5, 6]


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return draw_face(draw_identity(3), 40.0, 96)


def test_sharpness_is_compared_at_one_size(face):
    small = cv2.resize(face, (48, 48), interpolation=cv2.INTER_AREA)
    lanczos = cv2.resize(small, (96, 96), interpolation=cv2.INTER_LANCZOS4)
    assert same_size_sharpness_ratio(small, lanczos) == pytest.approx(1.0)
    restored, blurred = face, cv2.GaussianBlur(lanczos, (0, 0), 2.0)
    ratios = [same_size_sharpness_ratio(small, copy) for copy in (restored, blurred)]
    assert ratios[0] is not None
    assert ratios[1] is not None
    assert ratios[0] > 1.2
    assert ratios[1] < LIMITS.min_sharpness_ratio
    assert same_size_sharpness_ratio(np.full_like(small, 90), face) is None


def test_means_are_null_where_nothing_was_compared():
    figures = mean_figures(table(row(identity_similarity=None)))
    assert figures["mean_identity_similarity"] is None
    assert figures["mean_colourfulness_gain_of_colourised"] is None
    assert figures["mean_abs_age_shift_years"] == pytest.approx(0.4)


def test_flagged_images_are_ranked_and_drawn(tmp_path):
    rows = table(row(age_shift_years=4.0), row(), row(age_shift_years=-12.0))
    assert rank_flagged(rows)["image_id"].to_list() == ["02", "00"]
    path = Workspace(tmp_path).stats / "guards.png"
    path.parent.mkdir(parents=True)
    plot_guards(path, rows, LIMITS, "synthetic faces")
    first = path.read_bytes()
    plot_guards(path, rows, LIMITS, "synthetic faces")
    assert path.read_bytes() == first
    plot_guards(path, rows.clear(), LIMITS, "synthetic faces")
