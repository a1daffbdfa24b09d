"""Attributes that ageing keeps: the truth, the classifier, its card."""

import dataclasses

import numpy as np
import pytest
import torch

from agetf_pipeline.config.evaluate import TrainEvaluatorsConfig
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import read_card, save_weights
from agetf_pipeline.evaluation.attribute_training import (
    attribute_loss,
    train_attribute_classifier,
)
from agetf_pipeline.evaluation.attributes import (
    ATTRIBUTE_KIND,
    ATTRIBUTES,
    AttributeClassifier,
    attributes_of,
    load_attribute_reader,
    num_classes,
    split_classes,
)
from agetf_pipeline.evaluation.drawn_people import FIRST_SEED, draw_people
from agetf_pipeline.evaluation.faces import draw_faces
from agetf_pipeline.synthetic.identity import draw_identity

CPU = torch.device("cpu")
CONFIG = TrainEvaluatorsConfig(
    num_steps=40, batch_size=32, lr=4e-3, width=8, embedding_dim=8, num_identities=80,
    num_ages_per_identity=2, input_px=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return draw_faces(CONFIG)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attributes")
    path = folder / "attributes.safetensors"
    losses = train_attribute_classifier(data, CONFIG, path, folder / "c.pt", "id", CPU)
    return path, losses


def test_the_truth_of_a_person_is_among_the_values_and_skin_has_three_thirds():
    people = [draw_identity(seed) for seed in range(300)]
    for name, values in ATTRIBUTES.items():
        assert {attributes_of(person)[name] for person in people} <= set(values)
    tones = [attributes_of(person)["skin_tone"] for person in people]
    assert all(60 < tones.count(tone) < 140 for tone in ATTRIBUTES["skin_tone"])
    pale = dataclasses.replace(people[0], skin_tone=0.0)
    dark = dataclasses.replace(people[0], skin_tone=1.0)
    assert attributes_of(pale)["skin_tone"] == "fair"
    assert attributes_of(dark)["skin_tone"] == "dark"


def test_what_time_changes_is_not_among_them():
    assert not {"hair_colour", "facial_hair", "hair_cut", "balding"} & set(ATTRIBUTES)


def test_classes_are_laid_end_to_end():
    logits = np.arange(2 * num_classes(ATTRIBUTES)).reshape(2, -1)
    parts = split_classes(logits, ATTRIBUTES)
    assert [part.shape[1] for part in parts.values()] == [len(v) for v in ATTRIBUTES.values()]
    np.testing.assert_array_equal(np.concatenate(list(parts.values()), axis=1), logits)


def test_the_loss_falls_towards_the_true_values_and_has_a_gradient():
    codes = {"glasses": torch.tensor([1])}
    right, wrong = torch.tensor([[0.0, 3.0, 0.0]]), torch.tensor([[3.0, 0.0, 0.0]])
    assert attribute_loss({"glasses": right}, codes) < attribute_loss({"glasses": wrong}, codes)
    logits = torch.zeros(1, 3, requires_grad=True)
    attribute_loss({"glasses": logits}, codes).backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] < 0 < logits.grad[0, 0]


def test_people_are_the_same_whichever_others_are_drawn():
    together, alone = draw_people(0, 3, 2, 32, 5), draw_people(2, 3, 2, 32, 5)
    np.testing.assert_array_equal(together.faces[4:], alone.faces)
    np.testing.assert_array_equal(together.ages_years[4:], alone.ages_years)
    assert [identity.seed for identity in alone.identities] == [FIRST_SEED + 5_000_017_000] * 2


def test_a_few_steps_read_new_faces_better_than_the_commonest_value(data, trained):
    path, losses = trained
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    reader = load_attribute_reader(path, CPU)
    others = draw_people(0, 40, 2, 64, 9)
    read = reader.read(others.faces)
    assert set(read) == set(ATTRIBUTES)
    truth = np.array([attributes_of(identity)["skin_tone"] for identity in others.identities])
    commonest = max(np.mean(truth == tone) for tone in ATTRIBUTES["skin_tone"])
    assert np.mean(read["skin_tone"] == truth) > commonest + 0.15
    # A larger picture of the same faces is read alike.
    large = draw_people(0, 10, 2, 128, 9)
    assert np.mean(reader.read(large.faces)["skin_tone"] == read["skin_tone"][:20]) > 0.8


def test_the_card_says_how_good_it_is_on_people_whom_it_did_not_see(data, trained):
    path, _ = trained
    reader = load_attribute_reader(path, CPU)
    unseen = data.people >= 72  # the last tenth of 80
    assert reader.trained_on == "synthetic"
    for name in ATTRIBUTES:
        own = reader.accuracy[name]
        assert (own.n, own.synthetic) == (16, True)
        read = reader.read(data.faces[unseen])[name]
        assert own.accuracy == pytest.approx(
            np.mean(read == data.attributes[name][unseen]), abs=1e-4
        )


def test_a_trained_classifier_is_kept_and_another_kind_is_refused(data, trained, tmp_path):
    path, _ = trained
    before = path.read_bytes()
    again = train_attribute_classifier(data, CONFIG, path, tmp_path / "c.pt", "id", CPU)
    assert again == []
    assert path.read_bytes() == before
    card = read_card(path) | {"kind": "another"}
    other = tmp_path / "other.safetensors"
    save_weights(other, AttributeClassifier(8, num_classes(ATTRIBUTES)), card)
    with pytest.raises(WeightsError, match=f"Expected weights of kind {ATTRIBUTE_KIND}"):
        load_attribute_reader(other, CPU)


def test_photographs_without_attributes_train_nobody(data, tmp_path):
    unlabelled = dataclasses.replace(data, attributes=None)
    with pytest.raises(ValueError, match="known attributes"):
        train_attribute_classifier(
            unlabelled, CONFIG, tmp_path / "w.safetensors", tmp_path / "c.pt", "id", CPU
        )
