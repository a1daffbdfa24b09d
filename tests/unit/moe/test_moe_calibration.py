"""Fitting the mixture on simulated experts: biased, noisy, over- and underconfident, silent."""

from dataclasses import replace

import numpy as np
import pytest

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.data.ages import group_bounds
from agetf_pipeline.moe.calibration import (
    Calibration,
    ExpertCalibration,
    apply_calibration,
    correct_age,
    interval,
    load_calibration,
    scale_sigma,
    uncalibrated,
)
from agetf_pipeline.moe.conformal import conformal_quantile
from agetf_pipeline.moe.fitting import (
    CalibrationData,
    crossfitted_interval,
    fit_calibration,
    identity_folds,
    read_images,
)
from agetf_pipeline.moe.parameters import fit_correction, fit_sigma

BIAS = ((0.8, 6.0), (1.1, -4.0), (1.0, 5.0), (0.7, 10.0))
SAYS = (0.5, 1.5, 1.0, 2.0)


def simulate(num_images, seed, noise=(5.0, 6.0, 7.0, 8.0), missing=0.05, per_person=5):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 90, num_images)
    shared = rng.normal(0, 2, num_images)
    ages, sigmas = [], []
    for (slope, shift), says, level in zip(BIAS, SAYS, noise, strict=True):
        sigma = level * np.exp(rng.normal(0, 0.4, num_images))
        said = slope * truth + shift + shared + rng.normal(0, 1, num_images) * sigma
        ages.append(np.clip(said, 0, 100))
        sigmas.append(says * sigma)
    return CalibrationData(
        ["janus", "mivolo", "resnet50", "vgg16"],
        ["v1"] * 4,
        np.stack(ages, 1),
        np.stack(sigmas, 1),
        rng.random((num_images, 4)) >= missing,
        truth,
        np.array([f"s{n // per_person}" for n in range(num_images)]),
    )


@pytest.fixture(scope="module")
def fitted():
    return fit_calibration(simulate(360, 0), 2, 0.9, 50, 0)


def _errors(data, calibration):
    mixture, corrected, _, part = apply_calibration(
        data.names, data.age_NE, data.sigma_NE, data.ok_NE, calibration, 2
    )
    everyone = part.all(axis=1)
    off = np.abs(mixture.age_N - data.true_age_N)[everyone].mean()
    return off, np.abs(corrected - data.true_age_N[:, None])[everyone].mean(axis=0), mixture


def test_mixture_is_clearly_better_than_every_corrected_expert(fitted):
    off, alone, _ = _errors(simulate(4000, 1), fitted[0])
    assert off < 0.85 * alone.min()


@pytest.mark.parametrize("noise", [(3.0, 30.0, 30.0, 30.0), (3.0, 9.0, 9.0, 9.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_mixture_is_not_dragged_down_by_bad_experts(noise, seed):
    calibration, _ = fit_calibration(simulate(360, seed, noise), 2, 0.9, 50, 0)
    off, alone, _ = _errors(simulate(4000, 9, noise), calibration)
    assert off <= 1.02 * alone.min()


def test_coverage_on_new_images():
    calibration, _ = fit_calibration(simulate(1000, 2), 2, 0.9, 50, 0)
    read = read_images(simulate(4000, 1), calibration, 2)
    labelled = np.isfinite(read.age_N)
    inside = (read.true_age_N >= read.low_N) & (read.true_age_N <= read.high_N)
    assert inside[labelled].mean() == pytest.approx(0.9, abs=0.03)
    lower, upper = group_bounds("0-2")
    youngest = labelled & (read.true_age_N >= lower) & (read.true_age_N < upper)
    assert youngest.sum() >= 100
    assert inside[youngest].mean() >= 0.8


def test_readings_are_in_the_order_of_the_images(fitted):
    data, cross = simulate(360, 0), fitted[1]
    np.testing.assert_array_equal(cross.true_age_N, data.true_age_N)
    np.testing.assert_array_equal(cross.fold_N, identity_folds(data.identity_N, 0))
    known = np.isfinite(cross.expert_age_NE)
    np.testing.assert_array_equal(known, data.ok_NE)
    np.testing.assert_array_equal(known, np.isfinite(cross.expert_sigma_NE))
    labelled = np.isfinite(cross.age_N)
    mixed = (np.nan_to_num(cross.expert_age_NE) * cross.weight_NE).sum(axis=1)
    np.testing.assert_allclose(mixed[labelled], cross.age_N[labelled])
    part = cross.take(np.arange(10, 20))
    assert len(part.age_N) == len(part.weight_NE) == 10


def test_an_interval_never_sees_the_scores_of_its_own_fold(fitted):
    cross = fitted[1]
    low, high = crossfitted_interval(cross, 0.9)
    np.testing.assert_array_equal(low, cross.low_N)
    held = cross.fold_N == 2
    # Other truths in a fold move the intervals of the other folds, and none of its own.
    moved = replace(cross, true_age_N=np.where(held, 100 - cross.true_age_N, cross.true_age_N))
    other_low, other_high = crossfitted_interval(moved, 0.9)
    np.testing.assert_array_equal(other_low[held], low[held])
    np.testing.assert_array_equal(other_high[held], high[held])
    assert (other_high[~held] != high[~held]).any()


def test_crossfitted_figures_foretell_new_images(fitted):
    calibration, cross = fitted
    off, _, _ = _errors(simulate(4000, 1), calibration)
    assert np.nanmean(np.abs(cross.age_N - cross.true_age_N)) == pytest.approx(off, rel=0.12)


def test_same_data_in_any_order_same_calibration(fitted):
    data = simulate(360, 0)
    again, _ = fit_calibration(data, 2, 0.9, 50, 0)
    assert again.version == fitted[0].version
    order = np.random.default_rng(0).permutation(360)
    shuffled, _ = fit_calibration(data.take(order), 2, 0.9, 50, 0)
    assert shuffled.tau == pytest.approx(fitted[0].tau, rel=1e-3)


def test_too_few_images_or_subjects_change_nothing():
    calibration, cross = fit_calibration(simulate(40, 0), 2, 0.9, 50, 0)
    assert cross is None
    assert not calibration.calibrated
    assert "40 images" in str(calibration.reason)
    one_person = fit_calibration(simulate(60, 0, per_person=60), 2, 0.9, 50, 0)[0]
    assert not one_person.calibrated


def test_an_expert_that_hardly_answers_gets_no_weight():
    data = simulate(200, 0)
    data.ok_NE[5:, 3] = False
    calibration, _ = fit_calibration(data, 2, 0.9, 50, 0)
    assert not calibration.experts["vgg16"].usable
    assert "answered" in str(calibration.experts["vgg16"].reason)
    mixture, _, _, part = apply_calibration(
        data.names, data.age_NE, data.sigma_NE, data.ok_NE, calibration, 2
    )
    assert not part[:, 3].any()
    assert (np.nan_to_num(mixture.weight_NE)[:, 3] == 0).all()


def test_a_handful_of_images_can_be_asked_for():
    calibration, cross = fit_calibration(simulate(12, 0, missing=0.0, per_person=3), 2, 0.9, 10, 0)
    assert calibration.calibrated
    assert all(expert.usable for expert in calibration.experts.values())
    assert cross is not None
    assert np.isfinite(cross.age_N).all()


@pytest.mark.parametrize("num_images", [3, 4, 7])
@pytest.mark.parametrize("missing", [0.0, 0.6])
def test_hardly_any_image_does_not_break_it(num_images, missing):
    data = simulate(num_images, 0, missing=missing, per_person=1)
    calibration, cross = fit_calibration(data, 2, 0.9, 2, 0)
    assert calibration.calibrated
    assert cross is not None
    mixture, _, _, part = apply_calibration(
        data.names, data.age_NE, data.sigma_NE, data.ok_NE, calibration, 2
    )
    assert (np.isfinite(mixture.age_N) == (part.sum(axis=1) >= 2)).all()


def test_correction_is_monotone_and_removes_the_bias():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 90, 400)
    said = 0.6 * truth + 15 + rng.normal(0, 1, 400)
    knots_in, knots_out = fit_correction(said, truth)
    assert (np.diff(knots_in) > 0).all()
    assert (np.diff(knots_out) >= 0).all()
    expert = ExpertCalibration(
        model_version="v", num_images=400,
        knots_in_years=tuple(knots_in), knots_out_years=tuple(knots_out),
    )  # fmt: skip
    assert np.abs(correct_age(said, expert) - truth).mean() < 2.0
    corrected = correct_age(np.array([-5.0, 130.0, np.nan]), expert)
    assert 0 <= corrected[0] <= corrected[1] <= 100
    assert np.isnan(corrected[2])


def test_few_images_leave_the_correction_near_identity():
    knots_in, knots_out = fit_correction(np.array([20.0, 40.0]), np.array([21.0, 39.0]))
    assert np.abs(knots_in - knots_out).max() < 8
    assert abs(np.interp(30.0, knots_in, knots_out) - 30.0) < 1


def test_an_expert_that_always_says_the_same_age_can_be_fitted():
    truth = np.random.default_rng(0).uniform(0, 90, 100)
    knots_in, knots_out = fit_correction(np.full(100, 30.0), truth)
    assert np.isfinite(knots_out).all()
    assert np.interp(30.0, knots_in, knots_out) == pytest.approx(truth.mean(), abs=2)


def test_sigma_is_put_on_the_scale_of_the_errors():
    rng = np.random.default_rng(0)
    sigma = 5 * np.exp(rng.normal(0, 0.5, 2000))
    offset, slope = fit_sigma(sigma / 2, rng.normal(0, 1, 2000) * sigma)
    expert = ExpertCalibration(
        model_version="v", num_images=1, log_sigma_offset=offset, log_sigma_slope=slope
    )
    np.testing.assert_allclose(scale_sigma(sigma / 2, expert) / sigma, 1.0, atol=0.12)
    assert np.isnan(scale_sigma(np.array([0.0, -1.0, np.nan]), expert)).all()


def test_conformal_quantile_is_the_finite_sample_one():
    scores = np.arange(1, 100, dtype=float)  # 99 scores: ceil(100 * 0.9) = 90
    assert conformal_quantile(scores, 0.9) == 90
    assert conformal_quantile(np.arange(1.0, 10), 0.9) == 9
    assert conformal_quantile(np.arange(1.0, 9), 0.9) is None
    assert conformal_quantile(np.array([np.nan, np.inf]), 0.9) is None


def test_folds_hold_whole_identities():
    names = np.array([f"s{n % 17}" for n in range(200)])
    folds = identity_folds(names, 0)
    assert all(len(set(folds[names == name])) == 1 for name in set(names))
    assert len(set(folds)) == 5
    mask = np.arange(200) % 17 < 9  # leaving people out must not fail
    assert set(identity_folds(names[mask], 0)) <= set(range(5))


def test_a_calibration_comes_back_from_its_file(fitted, tmp_path):
    path = tmp_path / "calibration.json"
    fitted[0].save(path)
    assert load_calibration(path) == fitted[0]
    assert load_calibration(path).version == fitted[0].version


def test_a_file_from_before_the_quantiles_per_group_still_loads(tmp_path):
    path = tmp_path / "calibration.json"
    # Written by the version before: with this content and this version in the file.
    path.write_text(
        '{"calibrated": true, "conformal_quantile": 1.5, "experts": {}, "interval_level": 0.9, '
        '"num_identities": 9, "num_images": 60, "reason": null, "tau": 0.5, '
        '"trained_on": "synthetic", "version": "f97de82a3bf90be0"}'
    )
    old = load_calibration(path)
    assert old.group_conformal is None
    assert old.conformal_quantile == 1.5
    low, high = interval(np.array([50.0]), np.array([2.0]), old)
    assert (low[0], high[0]) == (47.0, 53.0)


def test_quantiles_per_group_are_part_of_file_and_version(fitted, tmp_path):
    calibration = fitted[0]
    assert calibration.group_conformal is not None
    path = tmp_path / "calibration.json"
    calibration.save(path)
    assert load_calibration(path).group_conformal == calibration.group_conformal
    without = calibration.model_copy(update={"group_conformal": None})
    assert without.version != calibration.version
    without.save(path)
    assert "group_conformal" not in path.read_text()


def test_a_calibration_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "calibration.json"
    with pytest.raises(DataError, match="relabel"):
        load_calibration(path)
    uncalibrated("nothing labelled", 0.9).save(path)
    path.write_text(path.read_text().replace('"tau": 0.5', '"tau": 0.6'))
    with pytest.raises(DataError, match="changed after"):
        load_calibration(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="calibration"):
        load_calibration(path)


def test_interval_stays_in_the_range_of_ages():
    calibration = Calibration(calibrated=True, conformal_quantile=2.0)
    low, high = interval(np.array([1.0, 50.0, 99.0]), np.array([5.0, 5.0, 20.0]), calibration)
    assert low.tolist() == [0.0, 40.0, 59.0]
    assert high.tolist() == [11.0, 60.0, 120.0]
    gaussian = interval(np.array([50.0]), np.array([10.0]), uncalibrated("none", 0.9))
    assert gaussian[1][0] == pytest.approx(50 + 16.449, abs=0.01)
