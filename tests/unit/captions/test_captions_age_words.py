"""Taking words of age out of captions."""

import pytest

from agetf_pipeline.captions.age_words import mentions_age, remove_age_words


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("A young man with short brown hair.", "A man with short brown hair."),
        ("An elderly woman in her late seventies with grey hair.", "A woman with grey hair."),
        ("a 34-year-old man with a beard.", "a man with a beard."),
        ("A teenage girl with long hair.", "A female person with long hair."),
        ("A baby boy smiling.", "A male person smiling."),
        ("A toddler.", "A person."),
        ("Two children with curly hair.", "Two people with curly hair."),
        ("A grandmother with curly hair.", "A woman with curly hair."),
        ("A middle-aged, bearded man.", "A bearded man."),
        ("The man is elderly and has grey hair.", "The man has grey hair."),
        ("At the age of 70, the man has grey hair.", "The man has grey hair."),
        ("A woman, possibly in her thirties, with blond hair.", "A woman with blond hair."),
        ("He looks young. He has brown hair.", "He has brown hair."),
        ("A ten-year-old.", "A person."),
        ("A young adult with red hair.", "A person with red hair."),
        ("An old man and a young woman.", "A man and a woman."),
    ],
)
def test_words_of_age_go_and_grammar_stays(raw: str, clean: str) -> None:
    assert remove_age_words(raw) == clean


@pytest.mark.parametrize(
    "text",
    [
        "A man with short brown hair, a beard and dark glasses, smiling.",
        "A woman with an old-fashioned hat.",
        "A man with grey hair and wrinkles.",
        "A woman with a bob, and two earrings.",
        "",
    ],
)
def test_other_captions_are_left_alone(text: str) -> None:
    assert remove_age_words(text) == text


@pytest.mark.parametrize("text", ["She is 45.", "He is about forty.", "The man is in his forties."])
def test_a_sentence_of_age_alone_leaves_nothing(text: str) -> None:
    assert remove_age_words(text) == ""


def test_a_sentence_that_cannot_be_mended_is_dropped() -> None:
    text = "Her age is hard to tell. She has long hair."
    assert mentions_age(text)
    assert remove_age_words(text) == "She has long hair."
