"""What captions name, and the share that is right."""

import dataclasses
from itertools import product

import pytest

from agetf_pipeline.captions.age_words import remove_age_words
from agetf_pipeline.captions.attributes import JOINT, Attributes, named_attributes, score
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.synthetic.captions import describe, visible_hair_colour
from agetf_pipeline.synthetic.identity import (
    FACIAL_HAIR,
    GLASSES,
    HAIR_COLOURS,
    HAIR_CUTS,
    draw_identity,
)

_WORN = {"None": "none", "Normal": "glasses", "Dark": "dark glasses"}


@pytest.mark.parametrize("with_age", [False, True])
def test_descriptions_of_drawn_faces_are_read_back(with_age: bool) -> None:
    """Every look at every age: with words of age, and after the filter took them out."""
    who = dataclasses.replace(draw_identity(0), gender="male")
    looks = product(HAIR_COLOURS, HAIR_CUTS, FACIAL_HAIR, GLASSES)
    for n, (colour, cut, facial_hair, glasses) in enumerate(looks):
        person = dataclasses.replace(
            who, hair_colour=colour, hair_cut=cut, facial_hair=facial_hair, glasses=glasses,
            smile=n % 2, gender="female" if n % 7 == 0 else "male",
        )  # fmt: skip
        for age in (1, 17, 24, 41, 58, 66, 93):
            caption = describe(person, age, with_age)
            shown = facial_hair if age >= 19 else "none"
            truth = Attributes(_WORN[glasses], visible_hair_colour(person, age), shown)
            assert named_attributes(caption) == truth, caption
            assert named_attributes(remove_age_words(caption)) == truth, caption
            grey_copy = describe(person, age, with_age, in_colour=False)
            assert named_attributes(grey_copy) == dataclasses.replace(truth, hair_colour=None)


@pytest.mark.parametrize(
    ("caption", "glasses", "hair_colour", "facial_hair"),
    [
        ("The woman has long, slightly wavy brown hair, blue eyes and black-framed glasses.",
         "glasses", "brown", "none"),
        ("He has brown eyes and curly black hair, no glasses, and a neat grey beard.",
         "none", "black", "beard"),
        ("Her hair is a light blonde. She wears sunglasses.", "dark glasses", "blond", "none"),
        ("A black and white photo of a man with short hair.", "none", None, "none"),
        ("A clean-shaven man without glasses, a beard or a moustache, with gray hair.",
         "none", "grey", "none"),
        ("A red-haired man with a mustache.", "none", "red", "moustache"),
        ("A man with a moustache and a beard and reddish brown hair.", "none", "brown", "beard"),
        ("A man with dark-rimmed glasses who has white hair.", "glasses", "white", "none"),
        ("A man not wearing glasses but with a goatee.", "none", None, "beard"),
        ("A brunette with brown eyes.", "none", "brown", "none"),
        ("A redhead with tinted glasses.", "dark glasses", "red", "none"),
        ("A bald man with brown eyes in a black shirt.", "none", None, "none"),
        ("A man with brown eyes and hair.", "none", None, "none"),
        ("A man with some facial hair.", "none", None, "beard"),
        ("A man with no facial hair and dark hair.", "none", None, "none"),
        ("", "none", None, "none"),
    ],
)  # fmt: skip
def test_captions_of_other_models(
    caption: str, glasses: str, hair_colour: str | None, facial_hair: str
) -> None:
    assert named_attributes(caption) == Attributes(glasses, hair_colour, facial_hair)


def test_score_counts_what_is_wrong_left_out_or_made_up() -> None:
    plain, bearded = Attributes("none", "red", "none"), Attributes("glasses", "black", "beard")
    said = {
        "A man with red hair.": plain,
        "A man with black hair, a beard and glasses.": bearded,
        "A man with brown hair, a beard and glasses.": bearded,
        "A man with black hair and a beard.": bearded,
        "A man with red hair and a moustache.": plain,
        "A man.": plain,
    }
    captions, truths = [*said, None] * 10, [*said.values(), plain] * 10
    figures = score(captions, truths, [f"person {n // 7}" for n in range(70)])
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(
        {"glasses": 5 / 7, "hair_colour": 4 / 7, "facial_hair": 5 / 7, JOINT: 2 / 7}
    )
    assert figures[JOINT].n == 70
    assert figures[JOINT].num_identities == 10
    assert figures[JOINT].low == pytest.approx(2 / 7)  # every person has the same captions


def test_score_refuses_columns_of_other_lengths() -> None:
    with pytest.raises(DataError, match="2 identities"):
        score(["A man."], [Attributes("none", None, "none")], ["a", "b"])
