"""FID and KID of features: what they are measured on, and what is said where they are not."""

import numpy as np
import pytest
import torch

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.statistics import Sampling
from agetf_pipeline.evaluation import distances
from agetf_pipeline.evaluation.distances import frechet_distance, measure_fid, measure_kid
from agetf_pipeline.evaluation.judges import Judge, to_input
from agetf_pipeline.evaluation.kernel_distance import kernel_sums, squared_mmd
from agetf_pipeline.evaluation.networks import AgeEstimator, IdentityEmbedder
from agetf_pipeline.evaluation.own_features import own_features

SAMPLING = Sampling(num_bootstrap=100, min_cell=30, seed=3)


def features(num: int, dim: int = 8, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (num, dim)).astype(np.float32)


def names(num: int, prefix: str, images_each: int = 1) -> np.ndarray:
    return np.array([f"{prefix}{i // images_each}" for i in range(num)])


def test_fid_of_few_images_is_no_figure_and_of_enough_has_no_interval():
    few = measure_fid(features(4999), features(5000, seed=1), SAMPLING)
    assert few.value is None
    assert few.n == 4999
    assert "5000 images" in few.reason
    assert "4999 generated" in few.reason
    enough = measure_fid(features(5000), features(5000, seed=1), Sampling(synthetic=True))
    assert enough.value == pytest.approx(frechet_distance(features(5000), features(5000, seed=1)))
    assert (enough.low, enough.high) == (None, None)
    assert enough.reason.startswith("no interval")
    assert enough.synthetic


def test_frechet_distance_is_symmetric_and_0_of_a_set_with_itself():
    a, b = features(40, 64), features(70, 64, seed=1, shift=0.5)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(64 * 4, rel=1e-5)
    with pytest.raises(ValueError, match="two images"):
        frechet_distance(a[:1], b)


def test_kid_says_what_it_rests_on():
    measure = measure_kid(
        features(60), names(60, "g", 2), features(50, seed=1), names(50, "r"), SAMPLING
    )
    assert measure.low < measure.value < measure.high
    assert (measure.n, measure.num_identities) == (60, 30)
    assert measure.note is None
    again = measure_kid(
        features(60), names(60, "g", 2), features(50, seed=1), names(50, "r"), SAMPLING
    )
    assert measure == again


def test_kid_of_too_few_images_or_people_is_no_figure():
    real = features(50, seed=1), names(50, "r")
    assert "suppressed" in measure_kid(features(29), names(29, "g"), *real, SAMPLING).reason
    assert "suppressed" in measure_kid(*real, features(29), names(29, "g"), SAMPLING).reason
    empty = np.empty((0, 1), np.float32), np.empty(0, str)
    assert measure_kid(*real, *empty, SAMPLING).value is None
    alone = measure_kid(features(40), names(40, "g", 40), *real, SAMPLING)
    assert alone.value is None
    assert "two people" in alone.reason


def test_of_too_many_images_as_many_are_drawn_every_time_and_it_is_said(monkeypatch):
    monkeypatch.setattr(distances, "MAX_KID_IMAGES", 40)
    generated = features(100, shift=1), names(100, "g")
    real = features(40, seed=1), names(40, "r")
    first, again = (measure_kid(*generated, *real, SAMPLING) for _ in range(2))
    assert first == again
    assert first.n == 40
    assert first.note == "40 of 100 generated and 40 of 40 real images, drawn"
    other = measure_kid(*generated, *real, Sampling(num_bootstrap=100, seed=4))
    assert other.value != first.value
    assert other.value == pytest.approx(first.value, rel=0.5)


def test_pairs_of_one_person_do_not_count():
    """By the definition, pair by pair: no image with itself, no person with themselves."""
    x, y = features(7, seed=1), features(5, seed=2)
    x_people, y_people = np.array(list("aabbcde")), np.array(list("aefgg"))

    def mean(first, first_people, second, second_people):
        values = [
            (float(np.dot(u.astype(np.float64), v)) / 8 + 1) ** 3
            for u, p in zip(first, first_people, strict=True)
            for v, q in zip(second, second_people, strict=True)
            if p != q
        ]
        return np.mean(values)

    expected = (
        mean(x, x_people, x, x_people) + mean(y, y_people, y, y_people)
        - 2 * mean(x, x_people, y, y_people)
    )  # fmt: skip
    found = squared_mmd(kernel_sums(x, x_people, y, y_people))
    assert found == pytest.approx(expected, rel=1e-6)


def test_images_that_are_the_real_ones_again_are_at_distance_0():
    """Renderings of the very people: only what the model changed may tell the sides apart."""
    x, people = features(50), names(50, "p")
    measure = measure_kid(x, people, x, people, SAMPLING)
    assert measure.value == pytest.approx(0, abs=1e-12)
    assert measure.low == pytest.approx(0, abs=1e-9)
    assert measure.high == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("network", [AgeEstimator(8), IdentityEmbedder(8, 16)])
def test_own_features_are_the_trunk_averaged_over_the_image(network):
    torch.manual_seed(0)
    judge = Judge(network.eval(), 64, "v", "synthetic faces", torch.device("cpu"))
    images = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    found = own_features(judge).features(images)
    assert found.shape == (3, 32)
    assert found.dtype == np.float32
    with torch.inference_mode():
        expected = network.trunk(to_input(images[1:2], 64, judge.device)).mean(dim=(2, 3))
    np.testing.assert_allclose(found[1], expected[0].numpy(), rtol=1e-4, atol=1e-6)
    assert own_features(judge).features(images[:0]).shape == (0, 32)


def test_a_network_without_a_trunk_has_no_own_features():
    judge = Judge(torch.nn.Identity(), 64, "v", "", torch.device("cpu"))
    with pytest.raises(WeightsError, match="Identity"):
        own_features(judge)
