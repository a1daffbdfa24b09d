import numpy as np
import pytest

from agetf_pipeline.core.statistics import Sampling
from agetf_pipeline.evaluation.identity import (
    measure_identity,
    measure_real_pairs,
    real_pairs,
    set_threshold,
)

SAMPLING = Sampling(num_bootstrap=50, min_cell=5)


def simulated(num_people: int, num_images: int, noise: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(num_people), num_images)
    centres = rng.normal(size=(num_people, 32))
    vectors = centres[people] + noise * rng.normal(size=(len(people), 32))
    ages = rng.uniform(0, 100, len(people))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), ages, people.astype(str)


def test_pairs_are_all_pairs_once():
    embeddings, ages, people = simulated(4, 3, 0.1)
    genuine, impostor = real_pairs(embeddings, ages, people)
    assert len(genuine.scores) == 4 * 3
    assert len(impostor.scores) == 12 * 11 // 2 - 12
    assert genuine.scores.min() > impostor.scores.max()
    assert genuine.gaps_years[0] == pytest.approx(abs(ages[0] - ages[1]))


def measure(similarity_NA, anchors, ages, people, pairs):
    verification = set_threshold(pairs, 1e-3)
    threshold = verification.threshold
    passed = None if threshold is None else similarity_NA >= threshold
    return measure_real_pairs(verification, SAMPLING) | measure_identity(
        similarity_NA, passed, anchors, ages, people, verification, SAMPLING
    )


def test_rates_of_clearly_separated_people():
    embeddings, ages, people = simulated(40, 4, 0.1)
    pairs = real_pairs(embeddings, ages, people)
    anchors = (5.0, 50.0, 95.0)
    same, other = np.full((160, 3), 0.95), np.full((160, 3), 0.0)
    for similarity, rate in ((same, 1.0), (other, 0.0)):
        found = measure(similarity, anchors, ages, people, pairs)
        assert found["renderings/verification_rate/95"].value == pytest.approx(rate)
        assert found["real/genuine_rate"].value == pytest.approx(1.0)
        assert found["renderings/verification_rate/gap_20-40"].value == pytest.approx(rate)
    threshold = found["real/verification_threshold"].value
    assert (pairs[1].scores >= threshold).mean() <= 1e-3


def test_too_few_pairs_give_no_rate():
    embeddings, ages, people = simulated(6, 2, 0.1)
    pairs = real_pairs(embeddings, ages, people)
    found = measure(np.ones((12, 1)), (5.0,), ages, people, pairs)
    for name in ("renderings/verification_rate", "real/genuine_rate"):
        assert found[name].value is None
        assert "too few" in found[name].reason
    assert found["renderings/id_similarity/5"].value == pytest.approx(1.0)
    assert found["real/id_similarity_impostor"].low is None
