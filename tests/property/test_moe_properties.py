"""What must hold of the mixture and the filter for every input."""

import numpy as np
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agetf_pipeline.config.filter import FilterConfig
from agetf_pipeline.data.ages import AGE_GROUPS, group_of
from agetf_pipeline.data.schemas import IMAGES, LABELS
from agetf_pipeline.moe.calibration import Calibration, ExpertCalibration, interval
from agetf_pipeline.moe.conformal import group_interval
from agetf_pipeline.moe.distributions import group_probabilities, mixture_distribution
from agetf_pipeline.moe.mixture import mix
from agetf_pipeline.moe.parameters import fit_correction
from agetf_pipeline.stages.filter import judge

ages = st.floats(0, 100)
sigmas = st.floats(0.01, 60)
answers = st.lists(st.tuples(ages, sigmas, st.booleans(), st.floats(-3, 3)), min_size=2, max_size=6)


def _mix(rows, tau):
    age, sigma, ok, mu = (np.array(column) for column in zip(*rows, strict=True))
    return mix(age[None], sigma[None], ok.astype(bool)[None], mu, tau)


@given(rows=answers, tau=st.floats(0.05, 10))
def test_weights_sum_to_one_and_the_age_lies_among_the_experts(rows, tau):
    mixture = _mix(rows, tau)
    answered = [row for row in rows if row[2]]
    if len(answered) < 2:
        assert np.isnan(mixture.age_N[0])
        assert np.isnan(mixture.weight_NE).all()
        return
    assert abs(mixture.weight_NE.sum() - 1) < 1e-9
    assert (mixture.weight_NE >= 0).all()
    assert all(mixture.weight_NE[0, e] == 0 for e, row in enumerate(rows) if not row[2])
    low, high = min(row[0] for row in answered), max(row[0] for row in answered)
    assert low - 1e-9 <= mixture.age_N[0] <= high + 1e-9
    assert mixture.within_N[0] > 0
    assert mixture.between_N[0] >= 0
    assert mixture.variance_years2[0] <= max(row[1] for row in answered) ** 2 + 50**2 + 1e-6


@given(rows=answers, tau=st.floats(0.05, 10), data=st.data())
def test_the_order_of_experts_changes_nothing(rows, tau, data):
    order = data.draw(st.permutations(range(len(rows))))
    first, second = _mix(rows, tau), _mix([rows[e] for e in order], tau)
    np.testing.assert_allclose(second.weight_NE, first.weight_NE[:, order], atol=1e-12)
    np.testing.assert_allclose(second.age_N, first.age_N, atol=1e-9)
    np.testing.assert_allclose(second.variance_years2, first.variance_years2, atol=1e-9)


@given(rows=answers, tau=st.floats(0.05, 10), hidden=st.tuples(ages, sigmas, st.floats(-3, 3)))
def test_an_expert_that_does_not_answer_changes_nothing(rows, tau, hidden):
    age, sigma, mu = hidden
    first, second = _mix(rows, tau), _mix([*rows, (age, sigma, False, mu)], tau)
    np.testing.assert_array_equal(second.weight_NE[:, :-1], first.weight_NE)
    np.testing.assert_allclose(second.age_N, first.age_N, atol=1e-12)


@given(age=ages, sigma=sigmas, quantile=st.floats(0, 20))
def test_the_interval_holds_its_age(age, sigma, quantile):
    calibration = Calibration(
        calibrated=True,
        experts={"janus": ExpertCalibration(model_version="v", num_images=1)},
        conformal_quantile=quantile,
    )
    low, high = interval(np.array([age]), np.array([sigma]), calibration)
    assert 0 <= low[0] <= age <= high[0] <= 120


_quantiles = st.lists(st.floats(0, 20), min_size=len(AGE_GROUPS), max_size=len(AGE_GROUPS))


@given(age=ages, sigma=sigmas, quantiles=_quantiles, wider=st.floats(1, 3))
def test_an_interval_by_groups_holds_its_age_and_grows_with_its_quantiles(
    age, sigma, quantiles, wider
):
    first, second = (
        group_interval(np.array([age]), np.array([sigma]), factor * np.array(quantiles))
        for factor in (1.0, wider)
    )
    assert 0 <= second[0][0] <= first[0][0] <= age <= first[1][0] <= second[1][0] <= 120


@given(age=ages, sigma=sigmas, quantiles=_quantiles, truth=ages)
def test_a_true_age_within_its_own_groups_quantile_is_inside(age, sigma, quantiles, truth):
    group = AGE_GROUPS.index(group_of(truth))
    low, high = group_interval(np.array([age]), np.array([sigma]), np.array(quantiles))
    if abs(truth - age) < 0.999 * quantiles[group] * sigma:
        assert low[0] <= truth <= high[0]


@given(rows=answers, tau=st.floats(0.05, 10), data=st.data())
def test_distributions_sum_to_one_whatever_the_order_of_experts(rows, tau, data):
    mixture = _mix(rows, tau)
    age, sigma, ok, _ = (np.array(column)[None] for column in zip(*rows, strict=True))
    mixed = mixture_distribution(mixture.weight_NE, age, sigma, ok.astype(bool))
    groups = group_probabilities(mixed)
    if ok.sum() < 2:
        assert np.isnan(mixed).all()
        assert np.isnan(groups).all()
        return
    assert abs(mixed.sum() - 1) < 1e-5
    assert abs(groups.sum() - 1) < 1e-5
    assert (mixed >= 0).all()
    order = data.draw(st.permutations(range(len(rows))))
    again = mixture_distribution(
        mixture.weight_NE[:, order], age[:, order], sigma[:, order], ok[:, order].astype(bool)
    )
    np.testing.assert_allclose(again, mixed, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(ages, ages), min_size=2, max_size=60))
def test_a_correction_keeps_the_order_of_ages(pairs):
    said, truth = (np.array(column) for column in zip(*pairs, strict=True))
    knots_in, knots_out = fit_correction(said, truth)
    assert (np.diff(knots_in) > 0).all()
    assert (np.diff(knots_out) >= 0).all()
    assert (knots_in[0], knots_in[-1]) == (0.0, 100.0)


_faces = st.lists(
    st.tuples(
        st.sampled_from([None, 1.0, 15.0, 25.0, 35.0, 80.0]),  # age of the label
        st.floats(0.125, 400.0, width=32),  # variance
        st.floats(0.125, 80.0, width=32),  # interval width
        st.sampled_from([None, -60.0, 0.0, 35.0]),  # yaw
        st.sampled_from([None, "None", "Dark"]),
        st.sampled_from([None, None, 42.0]),  # age that the corpus gives
    ),
    max_size=25,
)
_tight = st.builds(
    dict,
    max_sigma_years=st.floats(0.5, 20),
    max_interval_width_years=st.floats(1, 80),
    max_head_yaw=st.floats(10, 60),
    drop_dark_glasses=st.booleans(),
    min_kept_per_group=st.integers(0, 5),
)


def _tables(faces):
    images, labels = [], []
    for n, (age, variance, width, yaw, glasses, true_age) in enumerate(faces):
        images.append(
            {"image_id": f"i{n:02d}", "true_age_years": true_age, "head_yaw": yaw,
             "glasses": glasses}
        )  # fmt: skip
        labels.append(
            {
                "image_id": f"i{n:02d}",
                "age_years": age,
                "variance_years2": None if age is None else variance,
                "interval_low_years": None if age is None else age,
                "interval_high_years": None if age is None else age + width,
            }
        )
    return _frame(images, IMAGES), _frame(labels, LABELS)


def _frame(rows, spec):
    empty = pl.from_arrow(spec.schema.empty_table())
    return pl.DataFrame(rows, schema=empty.schema) if rows else empty


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(faces=_faces, tight=_tight, looser=st.tuples(*[st.floats(1, 3)] * 3, st.integers(0, 3)))
def test_a_looser_threshold_keeps_a_superset(faces, tight, looser):
    images, labels = _tables(faces)
    loose = {
        "max_sigma_years": tight["max_sigma_years"] * looser[0],
        "max_interval_width_years": tight["max_interval_width_years"] * looser[1],
        "max_head_yaw": tight["max_head_yaw"] * looser[2],
        "drop_dark_glasses": False,
        "min_kept_per_group": tight["min_kept_per_group"] + looser[3],
    }
    kept = []
    for thresholds in (tight, loose):
        judged = judge(images, labels, FilterConfig(**thresholds), 1.0)
        assert judged.height == len(faces)
        assert (judged["keep"] == (judged["reasons"].list.len() == 0)).all()
        kept.append(set(judged.filter("keep")["image_id"].to_list()))
        chosen = judged.filter("keep")
        assert chosen["curriculum_weight"].is_between(0, 1).all()
        assert set(chosen["age_group"].to_list()) <= set(AGE_GROUPS)
    assert kept[0] <= kept[1]
