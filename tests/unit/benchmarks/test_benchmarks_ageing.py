"""The baselines of the ageing benchmark, and what it calls better."""

import numpy as np
import pytest
import torch

from agetf_pipeline.core.statistics import Sampling
from benchmarks import ageing_baselines as baselines
from benchmarks import ageing_data as data
from benchmarks import ageing_measures as measures
from benchmarks.ageing_networks import COPY, NEAREST, OURS, UNET


def test_an_untrained_unet_returns_the_face_and_its_ages_reach_every_pixel():
    torch.manual_seed(0)
    network = baselines.ResidualUNet(4, 3)
    faces = torch.rand(2, 3, 32, 32) * 2 - 1
    young, old = torch.full((2,), 20.0), torch.full((2,), 80.0)
    assert torch.equal(network(faces, young, old), faces)
    torch.nn.init.normal_(network.to_change.weight)
    network.eval()
    difference = (network(faces, young, old) - network(faces, young, young)).abs()
    assert difference.shape == faces.shape
    assert bool((difference.amax(dim=1) > 0).all())


def test_the_published_width_has_the_published_size():
    num_parameters = sum(p.numel() for p in baselines.ResidualUNet(64).parameters())
    # 31 million with transposed convolutions; bilinear upsampling and 1x1 convolutions take fewer.
    assert 26e6 < num_parameters < 32e6


def test_halving_blurs_with_one_two_one():
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 4] = 16.0
    halved = baselines.blurred_half(x)
    assert halved.shape == (1, 1, 4, 4)
    assert halved[0, 0].sum() == 4.0  # the quarter of the places keeps the mean
    assert halved[0, 0, 2, 2] == 4.0  # (2 / 4)^2 of the pixel that it stands on
    assert torch.allclose(baselines.blurred_half(torch.ones(1, 2, 8, 8)), torch.ones(1, 2, 4, 4))


def test_the_unet_gets_the_same_bytes_one_by_one_and_together():
    torch.manual_seed(0)
    network = baselines.ResidualUNet(4, 3)
    torch.nn.init.normal_(network.to_change.weight, std=0.1)
    faces = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    ages = np.array([10.0, 40.0, 70.0])
    together = baselines.render_unet(network, faces, ages, [5, 55])
    assert together.shape == (3, 2, 32, 32, 3)
    assert np.array_equal(together[1:2], baselines.render_unet(network, faces[1:2], ages[1:2],
                                                               [5, 55]))  # fmt: skip


def test_the_nearest_face_has_the_age_and_the_gender_before_it_is_alike():
    known = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [1.0, 0.0]], np.float32)
    ages = np.array([30.0, 61.0, 60.0, 60.0])
    genders = np.array(["male", "male", "male", "female"])
    source = np.array([[1.0, 0.0]], np.float32)
    chosen = baselines.nearest_faces(
        source, np.array(["male"]), known, ages, genders, [30, 60, 95], 4.0
    )
    # At 60 the woman is the more alike; at 95 no one is near, so the oldest counts.
    assert chosen.tolist() == [[0, 1, 1]]


def test_a_copy_is_the_source_at_every_age():
    faces = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    copied = baselines.render_copy(faces, 3)
    assert copied.shape == (2, 3, 8, 8, 3)
    assert all(np.array_equal(copied[:, column], faces) for column in range(3))


def test_people_of_the_parts_and_of_the_evaluators_are_disjoint():
    from agetf_pipeline.evaluation.faces import FIRST_SEED

    starts = sorted([*data._FIRST_SEED.values(), FIRST_SEED])
    for scale in (data.FULL, data.QUICK):
        largest = max(scale.num_train, scale.num_val, scale.num_test)
        assert all(second - first > largest for first, second in zip(starts, starts[1:]))  # noqa: B905, RUF007


def test_a_series_keeps_its_camera_and_draws_the_truth(tmp_path):
    drawn = data.series("val", 2, tmp_path)
    again = data.series("val", 2, tmp_path)
    assert np.array_equal(drawn.truth, again.truth)
    assert drawn.faces.shape == (4, 64, 64, 3)
    assert drawn.targets.shape == (4, 10, 64, 64, 3)
    assert drawn.people.tolist() == [0, 0, 1, 1]
    # The upper corners show the place: equal at all ages.
    assert np.array_equal(drawn.truth[0, 0, :4, :4], drawn.truth[0, 9, :4, :4])
    assert not np.array_equal(drawn.truth[0, 0], drawn.truth[0, 9])


@pytest.fixture
def sampled() -> tuple[dict, np.ndarray]:
    rng = np.random.default_rng(3)
    people = np.repeat(np.arange(40), 2)
    noise = rng.normal(0, 0.1, 80)
    values = {OURS: 10 + noise, COPY: 9 + noise, NEAREST: 11 + noise,
              UNET: 10 + rng.normal(0, 1, 80)}  # fmt: skip
    each = {method: dict.fromkeys(measures.METRICS, value) for method, value in values.items()}
    each[COPY] = {**each[COPY], "age_spearman": np.full(80, np.nan)}
    return each, people


def test_better_is_a_paired_interval_above_zero_in_the_right_direction(sampled):
    each, people = sampled
    rows = measures.compare(each, people, Sampling(num_bootstrap=200, synthetic=True))
    verdicts = {(row["metric"], row["baseline"]): row["verdict"] for row in rows}
    assert verdicts["psnr", COPY] == "better"
    assert verdicts["psnr", NEAREST] == "worse"
    assert verdicts["age_mae_years", COPY] == "worse"  # here less is better
    assert verdicts["age_mae_years", NEAREST] == "better"
    assert verdicts["psnr", UNET] == "no difference shown"
    assert verdicts["age_spearman", COPY] == "not defined"


def test_every_figure_is_in_the_table_and_lpips_is_absent_with_its_reason(sampled):
    each, people = sampled
    sampling = Sampling(num_bootstrap=50, synthetic=True)
    found = measures.summarise(each, people, sampling)
    assert found[OURS]["lpips"].value is None
    assert found[OURS]["lpips"].reason
    assert found[COPY]["age_spearman"].value is None
    assert found[OURS]["psnr"].synthetic
    table = measures.markdown_table(found, {}, measures.compare(each, people, sampling))
    assert all(table.count(metric.about) == 2 for metric in measures.METRICS.values())
    assert "synthetic" in table.splitlines()[0]
